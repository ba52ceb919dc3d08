/**
 * What the commands print where the reader has gone, the disk is full, descriptors are few, or
 * names are hostile.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CLI, cli, execute, type Result } from '../helpers/cli.ts'
import { isRoot, needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Shell } from '../helpers/shell.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const OBJECT = join(ROOT, 'bpf/guard.bpf.o')
/** One that a plan serves: the guard's is for root alone. */
const PLANNED = join(ROOT, 'test/fixtures/network.bpf.o')
/** Commands that only print; none needs a guard. */
const PRINTING: readonly (readonly string[])[] = [
  ['--help'],
  ['doctor', '--help'],
  ['ls'],
  ['ls', '--json'],
  ['policy', 'check', POLICY],
  ['policy', 'check', '--json', POLICY],
  ['policy', 'diff', POLICY, POLICY],
  ['ls', '--tree'],
  ['schema', 'ls'],
  ['completion', 'bash'],
  ['policy', 'show', POLICY],
  ['policy', 'show', '--masks', POLICY],
  ['plan', PLANNED],
  ['plan', '--json', PLANNED],
  ['obj', 'show', OBJECT],
  ...(machine.skip === undefined
    ? [['doctor'], ['doctor', '--json'], ['run', '--policy', POLICY, '--dry-run', '--', 'true']]
    : []),
]

const quoted = (words: readonly string[]): string => words.map(word => `'${word}'`).join(' ')
const command = (words: readonly string[]): string => quoted([process.execPath, CLI, ...words])
const sh = (script: string): Promise<Result> => execute('bash', ['-c', script])

for (const words of PRINTING)
  test(`${words.map(word => word.replace(`${ROOT}/`, '')).join(' ')}: status 141 for a closed pipe, 1 for a full disk`, async () => {
    // `true` may end after the command has written: here nobody ever reads.
    const closed = await sh(`{ sleep 0.05; ${command(words)}; echo "status $?" >&2; } | exec 0<&- true`)
    assert.equal(closed.stderr, 'status 141\n')
    const full = await sh(`${command(words)} > /dev/full; echo "status $?"`)
    assert.equal(full.stdout, 'status 1\n')
    assert.match(full.stderr, /write on standard output failed with ENOSPC/)
    assert.doesNotMatch(full.stderr, /^ {4}at /m)
    assert.ok(full.stderr.trim().split('\n').length <= 2, full.stderr)
    // The twins: a pipe that is read, a file, and nothing on stderr that is closed or full.
    const scratch = new Scratch()
    try {
      const read = await sh(command(words))
      const filed = await sh(
        `${command(words)} > ${scratch.path}/out 2>&-; echo "status $?"; wc -c < ${scratch.path}/out`,
      )
      assert.equal(read.status, 0, read.stderr)
      assert.match(filed.stdout, /^status 0\n[1-9]\d*\n$/)
    } finally {
      scratch[Symbol.dispose]()
    }
  })

test('a failure keeps its status where it cannot be told', async () => {
  for (const stderr of ['2>/dev/full', '2>&-', '2> >(exec 0<&- true)']) {
    assert.equal((await sh(`${command(['policy', 'show', '/no/such'])} ${stderr}`)).status, 1, stderr)
    assert.equal((await sh(`${command(['--bogus'])} ${stderr}`)).status, 2, stderr)
  }
})

/** A command that prints more than fits into a pipe. */
const LONG = ['policy', 'check', '--json', ...Array<string>(60).fill(POLICY)]

test('all that is printed arrives, also by a slow reader and a pipe that does not block', async () => {
  const whole = await sh(command(LONG))
  assert.ok(whole.stdout.length > 65_536, 'more than fits into a pipe')
  const slow = await sh(`${command(LONG)} | { sleep 0.5; cat; }`)
  assert.equal(slow.stdout, whole.stdout)
  using scratch = new Scratch()
  const fifo = `${scratch.path}/fifo`
  await execute('mkfifo', [fifo])
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
  const writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
  // Its own opening, which blocks; there is a writer by now.
  const stdin = openSync(fifo, 'r')
  const read = execute('sh', ['-c', 'sleep 0.3; exec cat'], { stdio: [stdin, 'pipe', 'inherit'] })
  const written = cli(LONG, { stdio: ['ignore', writer, 'inherit'] })
  // The reader sees the end once nobody else holds the pipe open for writing.
  for (const fd of [reader, stdin, writer]) closeSync(fd)
  assert.equal((await written).status, 0)
  assert.equal((await read).stdout, whole.stdout)
})

test('too few descriptors are one line and the way out, and enough are enough', machine, async () => {
  const COMMANDS = [['ls'], ['run', '--policy', POLICY, '--', 'true'], ['undelegate', '--pid', '1']]
  let refused = 0
  for (const words of COMMANDS)
    for (let limit = 19; limit <= 30; limit++) {
      const { stdout, stderr } = await sh(`ulimit -n ${limit}; ${command(words)}; echo "status $?"`)
      assert.doesNotMatch(stderr, /^ {4}at |internal error/m, `${words[0]} with ${limit}`)
      if (!/EMFILE/.test(stderr)) continue
      refused++
      assert.match(stderr, /next: Too many open files: raise the limit of this process, ulimit -n\n$/)
      assert.match(stdout, /status 1\n$/)
    }
  assert.ok(refused > 0, 'no limit was too low')
  assert.equal((await sh(`ulimit -n 64; ${command(COMMANDS[1]!)}`)).status, 0)
})

const FORGED = 'mnt:[1]  user:[1]  0  /sys/fs/bpf  1 systemd  -  cmds=any'
const HOSTILE: readonly [what: string, name: string][] = [
  ['escapes and a line break', `a\x1b[2K\r\x1b]0;owned\x07\n${FORGED.replaceAll('/', '\\')}`],
  ['C1 controls', 'a\u009b31mb\u0085c'],
  ['bidirectional overrides', 'a\u202eb\u2066c\u2069'],
  ['what is not seen', 'a\u200bb\ufeff\u2028c\u2029'],
  ['tabs and runs of blanks', `a\t${FORGED.replaceAll('/', '\\')} `],
  ['letters that go from right to left', 'a\u05d0\u05d1 1 \u0627'],
  ['what we would say', 'y: delegate_cmds=any (covered)'],
  ['a plain word', 'plain'],
]
/** Characters that a terminal obeys. A workload must get none of them onto root's terminal. */
const OBEYED = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u0590-\u08ff]/u

for (const [what, name] of HOSTILE)
  test(`a mount point with ${what} in its name is one harmless row`, machine, async () => {
    const shell = await Shell.start()
    try {
      const path = `/mnt/${name}`
      const octal = [...Buffer.from(path)].map(byte => `\\${byte.toString(8).padStart(3, '0')}`).join('')
      await shell.run(`mount -t tmpfs t /mnt; d=$(printf '${octal}.'); mkdir "\${d%.}"`)
      const pid = String(shell.pid)
      const made = await cli(['delegate', '--pid', pid, '--policy', POLICY, '--path', path])
      assert.equal(made.status, 0, made.stderr)
      const again = await cli(['delegate', '--pid', pid, '--policy', POLICY, '--path', path])
      assert.equal(again.status, 1)
      const json = await cli(['ls', '--json'])
      const listed = await cli(['ls'])
      const gone = await cli(['undelegate', '--pid', pid, '--path', path])
      assert.equal(gone.status, 0, gone.stderr)
      for (const { stdout, stderr } of [made, again, json, listed, gone])
        for (const line of [...stdout.split('\n'), ...stderr.split('\n')]) {
          assert.doesNotMatch(line, OBEYED)
          assert.doesNotMatch(line, /^mnt:\[1\]/)
        }
      assert.equal(made.stdout.trim().split('\n').length, 1)
      assert.match(made.stdout, /^delegated to process \d+ at ("\/mnt\/.*"|\/mnt\/[\w.-]+): delegate_cmds=/)
      const row = listed.stdout.split('\n').find(line => line.includes(` ${pid} `))
      assert.equal(row?.split(/ {2,}/).length, 9, row)
      const found = (JSON.parse(json.stdout) as { path: string; pids: number[] }[]).find(one =>
        one.pids.includes(shell.pid),
      )
      assert.equal(found?.path, path)
    } finally {
      await shell.end()
    }
  })

test(
  'a process that names itself with escapes is one harmless row; a plain name is as it is',
  machine,
  async () => {
    for (const [name, shown] of [
      ['q\x1b[31m\nmnt:[9]', '"q\\u001b[31m\\nmnt:[9]"'],
      ['x  -  cmds=any', '"x \\u{20}- \\u{20}cmds=any"'],
      ['two words', '"two words"'],
      ['plain-name', 'plain-name'],
    ] as const) {
      const shell = await Shell.start()
      try {
        const octal = [...Buffer.from(name)].map(byte => `\\${byte.toString(8).padStart(3, '0')}`).join('')
        await shell.run(`printf '${octal}' > /proc/$$/comm`)
        const made = await cli(['delegate', '--pid', String(shell.pid), '--policy', POLICY])
        assert.equal(made.status, 0, made.stderr)
        const { stdout } = await cli(['ls'])
        const row = stdout.split('\n').find(line => line.includes(` ${shell.pid} `))
        assert.ok(row?.includes(` ${shell.pid} ${shown} `), row)
        assert.equal(row?.split(/ {2,}/).length, 9, row)
      } finally {
        await shell.end()
      }
    }
  },
)

test('an object with hostile names is shown without their effect', async () => {
  using scratch = new Scratch()
  const file = scratch.write('x.o', xdpObject('xdp\x1b[2J\nforged: row'))
  for (const words of [
    ['obj', 'show', file],
    ['obj', 'show', '--json', file],
    ['plan', file],
    ['plan', '--json', file],
    ['plan', '--format', 'systemd', file],
    ['plan', '--program', 'no\x1b[2Jsuch\nprogram', file],
    ['plan', `/no\x1b[2J/such\nfile`],
  ]) {
    const { stdout, stderr } = await cli(words)
    for (const line of [...stdout.split('\n'), ...stderr.split('\n')]) {
      assert.doesNotMatch(line, OBEYED, words.join(' '))
      assert.doesNotMatch(line, /^(forged|program|file)/, words.join(' '))
    }
  }
})

test('files without an end are refused within their bound; files within it are read', async () => {
  for (const words of [
    ['policy', 'check', '/dev/zero'],
    ['policy', 'show', '/dev/zero'],
    ['plan', '/dev/zero'],
    ['obj', 'show', '/dev/zero'],
    ['plan', '--check', '/dev/zero', OBJECT],
  ]) {
    const { status, stderr } = await cli(words)
    assert.equal(status, 1, words.join(' '))
    assert.match(stderr, /larger than/)
  }
  const endless = await sh(`yes | ${command(['policy', 'check', '-'])}`)
  assert.equal(endless.status, 1)
  assert.match(endless.stderr, /larger than 256KiB/)
  assert.equal((await sh(`cat '${POLICY}' | ${command(['policy', 'check', '-'])}`)).status, 0)
  assert.equal((await sh(`${command(['policy', 'check'])} <(cat '${POLICY}')`)).status, 0)
  using scratch = new Scratch()
  const file = scratch.write('big.yaml', '')
  await execute('truncate', ['-s', '10G', file])
  assert.equal((await cli(['policy', 'check', file])).status, 1)
  assert.equal((await cli(['obj', 'show', file])).status, 1)
})

test('a defect is one line; BPFTOKEN_DEBUG shows its stack', async () => {
  // A file that only exists to make the command fail inside.
  using scratch = new Scratch()
  const broken = scratch.write(
    'broken.cjs',
    "Object.defineProperty(process, 'geteuid', { value: () => { throw new TypeError('broken') } })",
  )
  const run = (env: NodeJS.ProcessEnv) =>
    execute(process.execPath, ['--require', broken, CLI, 'ls'], { env: { ...process.env, ...env } })
  const plain = await run({})
  assert.equal(plain.status, 1)
  assert.match(plain.stderr, /^bpftoken: internal error: broken\nbpftoken: {3}next: .*BPFTOKEN_DEBUG=1.*\n$/)
  assert.match((await run({ BPFTOKEN_DEBUG: '1' })).stderr, /^ {4}at /m)
})

test('/proc of another PID namespace is refused; the right one serves', machine, async () => {
  const words = (...args: string[]): string => `${command(args)}; echo "status $?"`
  const inner = `unshare --user --map-root-user --mount --net sleep 60 & sleep 0.3
    ${words('delegate', '--pid', '$!', '--policy', POLICY).replaceAll("'$!'", '$!')}
    ${words('run', '--policy', POLICY, '--', 'true')}
    ${words('ls')}; kill $!`
  const both = (mount: string) =>
    execute('unshare', ['--pid', '--fork', ...mount.split(' ').filter(Boolean), 'bash', '-c', inner])
  const foreign = await both('')
  assert.equal(foreign.stdout, 'status 4\n'.repeat(3))
  assert.equal(
    foreign.stderr.match(/\/proc is of another PID namespace\n.*mount -t proc proc \/proc/g)?.length,
    3,
  )
  const own = await both('--mount-proc')
  assert.equal(own.stdout.match(/^status 0$/gm)?.length, 3, own.stdout + own.stderr)
})

test(
  '/proc of another PID namespace is refused where it gives us the same number by chance',
  machine,
  async () => {
    // What is forked next is made to have the same number in the inner and in the outer namespace.
    const alike = 'o=$(exec readlink /proc/self); echo $o > /proc/sys/kernel/ns_last_pid;'
    const look = `process.stdout.write((process.pid === Number(require('fs').readlinkSync('/proc/self'))) + ' ')`
    const inner = `${alike} ${process.execPath} -e "${look}"; ${alike} ${command(['ls'])}; echo "status $?"`
    const outer = [
      '--pid',
      '--mount',
      '--fork',
      '--mount-proc',
      'unshare',
      '--pid',
      '--fork',
      'bash',
      '-c',
      inner,
    ]
    const { stdout, stderr } = await execute('unshare', outer)
    assert.equal(stdout, 'true status 4\n')
    assert.match(stderr, /\/proc is of another PID namespace/)
  },
)

test('the boot cache leaves nothing half-written on a full disk, and is used where there is room', {
  skip: isRoot ? false : 'needs root',
}, async () => {
  const on = (size: string) =>
    execute('unshare', [
      '--mount',
      'sh',
      '-c',
      `mount -t tmpfs -o size=${size} t /run
       for i in 1 2; do ${command(['plan', '--check', POLICY, OBJECT])} > /dev/null; done
       find /run/bpftoken/cache -type f -size 0; find /run/bpftoken/cache -type f -name '.*'; echo entries $(ls /run/bpftoken/cache | wc -l)`,
    ])
  assert.equal((await on('1m')).stdout, 'entries 2\n')
  assert.match((await on('4k')).stdout, /^entries [01]\n$/)
  // One page is for the directory's first file; the other entry does not fit.
  assert.match((await on('8k')).stdout, /^entries [01]\n$/)
})

test('policy check says the same of a policy that the boot cache has, and takes it from there', {
  skip: isRoot ? false : 'needs root',
}, async () => {
  using scratch = new Scratch()
  const file = scratch.write('policy.yaml', readFileSync(POLICY, 'utf8'))
  const check = command(['policy', 'check', file])
  const script = `mount -t tmpfs t /run
    ${check}; echo "status $?"; echo ---; ${check}; echo "status $?"; echo ---
    sed -i 's/\\["spec",[0-9]*,/["spec",999,/' /run/bpftoken/cache/policy-*; ${check}; echo ---
    sed -i '1i # moved' ${file}; ${check}`
  const { stdout } = await execute('unshare', ['--mount', 'sh', '-c', script])
  const [first, second, altered, moved] = stdout.split('---\n')
  const subjects = (line: number) => new RegExp(`policy\\.yaml:${line}:3: note: nobody is named`)
  const line =
    readFileSync(POLICY, 'utf8')
      .split('\n')
      .findIndex(text => text.startsWith('spec:')) + 2
  assert.match(first!, subjects(line))
  assert.equal(second, first)
  assert.match(altered!, subjects(999))
  assert.match(moved!, subjects(line + 1))
})

test('obj types prints the same lines that -o writes', async () => {
  using scratch = new Scratch()
  const file = join(scratch.path, 'network.ts')
  const written = await cli(['obj', 'types', PLANNED, '-o', file])
  const printed = await cli(['obj', 'types', PLANNED])
  assert.deepEqual([written.status, printed.status], [0, 0], written.stderr + printed.stderr)
  assert.equal(printed.stdout, readFileSync(file, 'utf8'))
  assert.ok(printed.stdout.split('\n').length > 10)
})

test('-o - is standard output, and no file is called so', async () => {
  using scratch = new Scratch()
  const there = { cwd: scratch.path }
  for (const args of [
    ['obj', 'types', PLANNED],
    ['policy', 'merge', POLICY, POLICY],
  ]) {
    const [plain, dashed] = [await cli(args, there), await cli([...args, '-o', '-'], there)]
    assert.deepEqual([plain.status, dashed.status], [0, 0], plain.stderr + dashed.stderr)
    assert.equal(dashed.stdout, plain.stdout)
  }
  const file = join(scratch.path, 'linked.o')
  const written = await cli(['obj', 'link', '-o', file, PLANNED], there)
  const piped = spawnSync(process.execPath, [CLI, 'obj', 'link', '-o', '-', PLANNED], there)
  assert.deepEqual([written.status, piped.status], [0, 0], written.stderr + piped.stderr)
  assert.ok(readFileSync(file).equals(piped.stdout))
  assert.match(`${piped.stderr}`, /^bpftoken: standard output: \d+ bytes of 1 objects$/m)
  const both = await cli(['obj', 'link', '--json', '-o', '-', PLANNED], there)
  assert.deepEqual([both.status, both.stdout], [2, ''])
  for (const args of [
    ['plan', '--format', 'podman', '--seccomp-profile', '-', PLANNED],
    ['try', '--save-policy', '-', PLANNED],
  ]) {
    const { status, stdout, stderr } = await cli(args, there)
    assert.deepEqual([status, stdout], [2, ''], stderr)
    assert.match(stderr, /It must be a file, for standard output is for the answer/)
  }
  assert.deepEqual(readdirSync(scratch.path), ['linked.o'])
})
