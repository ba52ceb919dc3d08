/** bpftoken simulate: its exit status says whether the scenario came out, and its JSON is as published. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { SCHEMAS } from '../../../src/api/schema.ts'

const ROOT = join(__dirname, '../../..')
const FOLDER = join(ROOT, 'examples/scenarios')
const scratch = mkdtempSync(join(tmpdir(), 'bpftoken-simulate-'))
after(() => rmSync(scratch, { recursive: true }))

function simulate(...args: string[]) {
  const program = ['--import', 'tsx', join(ROOT, 'src/cli/main.ts'), 'simulate']
  return spawnSync(process.execPath, [...program, ...args], { cwd: ROOT, encoding: 'utf8' })
}

const text = readFileSync(join(FOLDER, 'a2-token-create.yaml'), 'utf8')

function written(name: string, content: string): string {
  const file = join(scratch, name)
  writeFileSync(file, content)
  return file
}

test('a scenario that comes out as it expects ends with 0, and its JSON is as published', () => {
  const { status, stdout } = simulate('--json', join(FOLDER, 'a2-token-create.yaml'))
  assert.equal(status, 0)
  const document = SCHEMAS.simulate.parse(JSON.parse(stdout)) as { met: boolean; steps: unknown[] }
  assert.equal(document.met, true)
  assert.equal(document.steps.length, 12)
})

test('one that does not ends with 1, and says where and why', () => {
  const file = written(
    'wrong.yaml',
    text.replace('btf, token: t, expect: EPERM', 'btf, token: t, expect: ok'),
  )
  const { status, stdout } = simulate(file)
  assert.equal(status, 1)
  assert.match(stdout, /EPERM, not ok/)
  assert.match(stdout, /the token is ignored: a token that allows the command/)
  assert.match(stdout, /1 of \d+ expectations are not met/)
})

test('what is no scenario ends with 2, with line and column', () => {
  const { status, stderr } = simulate(written('bad.yaml', text.replace('do: btf', 'do: fly')))
  assert.equal(status, 2)
  assert.match(stderr, /bad\.yaml:\d+:\d+/)
})

test('--checks names the functions of the kernel', () => {
  assert.ok(readdirSync(FOLDER).includes('b5-both-hands.yaml'))
  const { status, stdout } = simulate('--checks', join(FOLDER, 'b5-both-hands.yaml'))
  assert.equal(status, 0)
  assert.match(stdout, /passed {2}fsconfig CREATE: CAP_SYS_ADMIN over the bpffs \(mount_capable\)/)
})
