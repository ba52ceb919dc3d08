/** explain, of a process with more mounts than anybody looks at: it says so, and ends. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { explainCall } from '../../../src/lending/explain.ts'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { situationOfPid } from '../../../src/lending/situation.ts'
import { openProcess, readProcLines } from '../../../src/sys/process.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { tidyScratch } from '../../helpers/tidy-scratch.ts'

const scratch = tidyScratch()

/**
 * In a mount namespace of its own: a bpffs that delegates, before and after `times` doublings of
 * mounts with long paths.
 */
const SCRIPT = `
  mount -t tmpfs none "$0" && cd "$0" && mkdir first last
  mount -t bpf -o delegate_cmds=any first first
  mkdir many && mount -t tmpfs none many && cd many
  name=$(printf '%0200d' 0)
  for i in $(seq "$1"); do mkdir "$name$i" && mount --rbind . "$name$i" || exit 1; done
  mount -t bpf -o delegate_cmds=any last ../last
  echo done; read line`

async function withMounts(times: number, look: (pid: number) => Promise<void>): Promise<void> {
  const command = ['--mount', '--propagation', 'private', 'sh', '-c', SCRIPT, scratch.path, `${times}`]
  const child = spawn('unshare', command, { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    let said = ''
    child.stdout.on('data', chunk => {
      said += String(chunk)
    })
    await eventually(() => said.includes('done') || child.exitCode !== null, 'it never mounted all')
    assert.equal(said, 'done\n')
    await look(child.pid!)
  } finally {
    child.stdin.end('\n')
    await eventually(() => child.exitCode !== null || child.signalCode !== null, 'it never ended')
  }
}

const delegated = (path: string): string => `${scratch.path}/${path}`

test('of a few mounts all are looked at', needsTokens(), async () => {
  await withMounts(3, async pid => {
    const situation = await situationOfPid(pid)
    assert.equal(situation.mountsCut, false)
    const paths = situation.mounts.map(({ path }) => path)
    assert.deepEqual(
      paths.filter(path => path.startsWith(scratch.path)),
      [delegated('first'), delegated('last')],
    )
    assert.deepEqual(explainCall(runningKernel(), situation, { cmd: 'map_create' }).notes, [])
  })
})

test('of very many the first ones are looked at, and that is said', needsTokens(), async () => {
  await withMounts(14, async pid => {
    const situation = await situationOfPid(pid)
    assert.equal(situation.mountsCut, true)
    const paths = situation.mounts.map(({ path }) => path)
    assert.deepEqual([paths.includes(delegated('first')), paths.includes(delegated('last'))], [true, false])
    assert.match(
      explainCall(runningKernel(), situation, { cmd: 'map_create' }).notes.join('\n'),
      /^it has more mounts than are looked at: of a bpffs among the last ones nothing is known$/,
    )
  })
})

test('readProcLines() gives whole lines, and no more than it was asked for', () => {
  using self = openProcess(process.pid)
  const all = readProcLines(self, 'mountinfo', 1 << 24)
  assert.equal(all.isWhole, true)
  const lines = all.text.split('\n')
  const exact = readProcLines(self, 'mountinfo', Buffer.byteLength(all.text))
  assert.deepEqual(exact, all)
  const two = Buffer.byteLength(`${lines[0]}\n${lines[1]}\n`)
  assert.deepEqual(readProcLines(self, 'mountinfo', two + 5), {
    text: `${lines[0]}\n${lines[1]}\n`,
    isWhole: false,
  })
  assert.deepEqual(readProcLines(self, 'mountinfo', 5), { text: '', isWhole: false })
})
