/** The worked examples of the library, run as people run them, and what they print. */
import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { parseObject } from '../../src/ebpf/object/spec.ts'
import { objectBindings } from '../../src/ebpf/typed/bindings.ts'
import { execute, inPublic, PUBLIC, PUBLIC_CLI, publicCli, type Result } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const FOLDER = 'examples/library'
const machine = needsTokens()
const before = snapshot()
after(async () => assert.deepEqual(await residue(before), []))

const run = (name: string, ...args: string[]): Promise<Result> =>
  execute(process.execPath, ['--import', 'tsx', join(ROOT, FOLDER, name), ...args], {
    cwd: ROOT,
    // One of them is a test itself, and prints for people.
    env: { ...process.env, NODE_TEST_CONTEXT: '' },
  })

const PRINTED: Readonly<Record<string, RegExp>> = {
  '01-count-packets.ts': /^packets were counted\n$/,
  '02-trace-exec.ts': /^"true" was started\n$/,
  '03-constants.ts':
    /^MODE_DROP: drop\nMODE_COUNT: pass\nCannot set constant "port": .* 0 to 65535, not 70000\n$/,
  '04-map-in-map.ts': /^no tenant: drop\nits packets: 3\n$/,
  '05-static-link.ts': /^unresolved: 0\nfrom 0 bytes: 1\nfrom 192 bytes: 2\n$/,
  '06-typed-bindings.ts': /^dropped 54 bytes for port 22\n5 packets since then, 6 for the port\n$/,
  '07-test-a-program.ts': /^# fail 0$/m,
  '08-types-of-another-kernel.ts': /^the maps of this machine were listed\n$/,
  '09-under-a-token.ts': /^with own capabilities\nthe program says pass\ntracing works too\n$/,
}

for (const [name, printed] of Object.entries(PRINTED))
  test(`${name} prints what it should`, machine, async () => {
    const { status, stdout, stderr } = await run(name)
    assert.equal(status, 0, stderr)
    assert.match(stdout, printed)
  })

test('09-under-a-token.ts does under a token what was lent, and nothing else', machine, async () => {
  const { status, stdout, stderr } = await publicCli([
    ...['run', '--policy', join(ROOT, 'examples/policies/packet-counter.yaml'), '--'],
    ...[process.execPath, '--import', 'tsx', `${PUBLIC}/${FOLDER}/09-under-a-token.ts`],
  ])
  assert.equal(status, 0, stderr)
  assert.match(
    stdout,
    /^with the token of \/sys\/fs\/bpf\nthe program says pass\ntracing: .*Missing rights: .*tracepoint/,
  )
})

test('10-plan-then-run.sh plans for an object, and loads it under the plan', machine, async () => {
  using scratch = new Scratch()
  const command = join(scratch.path, 'bpftoken')
  writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' ${PUBLIC_CLI} "$@"\n`)
  chmodSync(command, 0o755)
  chmodSync(scratch.path, 0o755)
  const [program, args] = inPublic(['sh', `${FOLDER}/10-plan-then-run.sh`])
  const { status, stdout, stderr } = await execute(program, args, {
    env: { ...process.env, PATH: `${scratch.path}:${process.env['PATH']}` },
  })
  assert.equal(status, 0, stderr)
  assert.match(stdout, /^loaded with the token of \/sys\/fs\/bpf$/m)
  assert.match(stdout, /^program +filter +xdp /m)
})

test('each example is in the table, and is tried here', () => {
  const files = readdirSync(join(ROOT, FOLDER)).filter(name => /^\d/.test(name))
  const listed = [...readFileSync(join(ROOT, FOLDER, 'README.md'), 'utf8').matchAll(/^\| `([^`]+)`/gm)].map(
    ([, name]) => name,
  )
  assert.deepEqual(listed, files.sort())
  assert.deepEqual([...Object.keys(PRINTED), '10-plan-then-run.sh'], files.sort())
})

test('the bindings in the examples are those of their object', () => {
  const spec = parseObject(readFileSync(join(ROOT, FOLDER, 'filter.bpf.o')), { name: 'filter' })
  const written = readFileSync(join(ROOT, FOLDER, 'filter.ts'), 'utf8')
  const header = /^\/\/ (.*)$/m.exec(written)![1]!
  assert.deepEqual(words(written), words(objectBindings(spec, { header }).text))
})

/** Without what a formatter may change. */
function words(text: string): string[] {
  return text.replace(/[;,]/g, ' ').split(/\s+/).filter(Boolean).sort()
}
