/**
 * plan and obj show as users run them: forms, comparison, objects inside other files, errors, and
 * that a plan works.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { cli, type Result } from '../helpers/cli.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

const OBJECT = scratch.write('pass.o', xdpObject())
const LOADERS = ['libbpf', 'cilium-ebpf', 'aya', 'bpftoken']
const NOBODY = { uid: 65534, gid: 65534 }
const plan = (...args: string[]): Promise<Result> => cli(['plan', ...args])

/** A policy that is the plan for the smallest object, after some change. */
async function policy(name: string, change: (text: string) => string = text => text): Promise<string> {
  const { stdout } = await plan('--loader', 'bpftoken', OBJECT)
  const changed = change(stdout)
  return scratch.write(name, changed)
}

test('plan and obj show have --help, with the exit statuses of --check', async () => {
  const help = await plan('--help')
  assert.equal(help.status, 0)
  assert.match(help.stdout, /--check/)
  assert.match(help.stdout, /Exit: 0 ok; 1/)
  assert.equal((await cli(['obj', 'show', '--help'])).status, 0)
  for (const words of ['plan', 'plan --loader x y', 'plan --format x y', 'obj show', 'obj bogus'])
    assert.equal((await cli(words.split(' '))).status, 2, words)
})

test('plan prints a policy that policy check takes, for every loader, to an ordinary user', async () => {
  for (const loader of LOADERS) {
    const { status, stdout, stderr } = await cli(['plan', '--loader', loader, OBJECT], NOBODY)
    assert.equal(status, 0, stderr)
    const file = scratch.write(`${loader}.yaml`, stdout)
    const checked = await cli(['policy', 'check', '--json', file])
    assert.equal(JSON.parse(checked.stdout)[0].valid, true, checked.stdout)
    assert.equal((await plan('--check', file, '--strict', '--loader', loader, OBJECT)).status, 0)
  }
})

test('plan prints mount options and what systemd, LXD and Incus take', async () => {
  const forms = {
    options: /^delegate_cmds=0x20,delegate_progs=0x42/m,
    systemd: /^BPFDelegatePrograms=BPFProgTypeSocketFilter,BPFProgTypeXdp$/m,
    lxd: /security\.delegate_bpf\.prog_types: "socket_filter:xdp"/,
    incus: /security\.bpffs\.delegate_progs: "socket_filter,xdp"/,
  }
  for (const [format, expected] of Object.entries(forms)) {
    const { status, stdout } = await plan('--format', format, OBJECT)
    assert.equal(status, 0)
    assert.match(stdout, expected)
  }
})

test('plan --json has masks, rights with their reasons, capabilities and risk', async () => {
  const { status, stdout } = await plan('--json', '--loader', 'bpftoken', OBJECT)
  assert.equal(status, 0)
  const answer = JSON.parse(stdout)
  assert.deepEqual(answer.masks, { cmds: '0x20', maps: '0x0', progs: '0x40', attachs: '0x2000000000' })
  assert.deepEqual(answer.rights[1], {
    ...{ domain: 'progs', word: 'xdp', bit: 6, by: ['program "let_pass"'], forLoader: false, certain: true },
  })
  assert.equal(answer.risk.level, 'medium')
})

test('plan --check tells what a policy lacks, and with --strict fails for what it grants needlessly', async () => {
  const check = (file: string, ...more: string[]) =>
    plan('--check', file, '--loader', 'bpftoken', ...more, OBJECT)
  const exact = await check(await policy('exact.yaml'), '--strict')
  assert.equal(exact.status, 0)
  assert.match(exact.stdout, /exactly what is needed/)
  const more = await policy('more.yaml', text => text.replace('maps: []', 'maps: [hash]'))
  const granted = await check(more)
  assert.equal(granted.status, 0)
  assert.match(granted.stdout, /grants needlessly +maps hash/)
  assert.equal((await check(more, '--strict')).status, 1)
  const less = await policy('less.yaml', text =>
    text.replace('- net_admin', '- perfmon').replace('- prog_load', '- map_create'),
  )
  const lacking = await check(less, '--json')
  assert.equal(lacking.status, 1)
  const answer = JSON.parse(lacking.stdout)
  assert.equal(answer.sufficient, false)
  assert.deepEqual(
    answer.lacking.map((one: { word: string }) => one.word),
    ['prog_load', 'net_admin'],
  )
  assert.equal((await check(scratch.write('wrong.yaml', 'kind: x\n'))).status, 2)
})

test('plan and obj show find objects inside other files', async () => {
  const before = Buffer.from('not an object')
  const file = scratch.write('program', Buffer.concat([before, xdpObject(), before]))
  const { status, stdout } = await plan('--loader', 'bpftoken', '--json', file, OBJECT)
  assert.equal(status, 0)
  const inside = `${file}@0x${before.length.toString(16)}`
  assert.deepEqual(JSON.parse(stdout).objects, [inside, OBJECT])
  assert.deepEqual(JSON.parse(stdout).rights[0].by[0], `program@0xd: program "let_pass"`)
  assert.ok((await cli(['obj', 'show', file])).stdout.startsWith(inside))
})

test('plan says what is wrong with a file, and with a program that no object has', async () => {
  const cases: [string, RegExp][] = [
    [scratch.path, /EISDIR/],
    ['/no/such/file', /Cannot read object "\/no\/such\/file": ENOENT/],
    [scratch.write('text', 'no ELF at all, '.repeat(9)), /does not start with/],
    [process.execPath, /there is none in/],
    [scratch.write('cut.o', xdpObject().subarray(0, -8)), /ELF/],
  ]
  for (const [file, expected] of cases) {
    for (const command of [['plan'], ['obj', 'show']]) {
      const { status, stderr } = await cli([...command, file])
      assert.equal(status, 1, file)
      assert.match(stderr, expected)
      assert.doesNotMatch(stderr, /internal error/)
    }
  }
  const { status, stderr } = await cli(['plan', '--json', '/no/such/file'])
  assert.equal(status, 1)
  assert.equal(JSON.parse(stderr).error.code, 'BPFTOKEN_NOT_FOUND')
  const other = await plan('--program', 'other', OBJECT)
  assert.equal(other.status, 1)
  assert.match(other.stderr, /no object has a program "other"/)
})

test('obj show tells what an object holds', async () => {
  const { status, stdout } = await cli(['obj', 'show', OBJECT], NOBODY)
  assert.equal(status, 0)
  assert.match(stdout, /little-endian, license "GPL"/)
  assert.match(stdout, /let_pass +xdp +xdp +xdp +2 instructions/)
  const [object] = JSON.parse((await cli(['obj', 'show', '--json', OBJECT])).stdout)
  assert.equal(object.byteOrder, 'little')
  assert.equal(object.programs[0].autoload, true)
  assert.equal(object.btf, null)
})
