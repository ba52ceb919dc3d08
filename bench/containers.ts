/**
 * What the hook adds to `crun run /bin/true`, with the daemon up: the same bundle with the hook and
 * without, in pairs. Where Podman's crun is, as for the tests.
 *
 *   tsx bench/containers.ts [ROUNDS]
 */
import { ContainerLab } from '../test/helpers/container-lab.ts'
import { summarize } from './stats.ts'

/** Runs both bundles in turn, where crun is: one process more for each would be most of the time. */
const LOOP = `
const { spawnSync } = require('node:child_process')
const [, rounds, ...bundles] = process.argv
const times = bundles.map(() => [])
for (let i = 0; i < Number(rounds) + 3; i++)
  for (const which of i % 2 ? [1, 0, 2] : [0, 1, 2]) {
    const begin = process.hrtime.bigint()
    const { status, stderr } = spawnSync('crun', ['--cgroup-manager=disabled', '--root', '/run/bench', 'run', '--bundle', bundles[which], 'bench-' + which])
    if (status !== 0) throw new Error(String(stderr))
    if (i >= 3) times[which].push(Number(process.hrtime.bigint() - begin) / 1e6)
  }
console.log(JSON.stringify(times))
`

async function main(rounds: number): Promise<void> {
  await using lab = await ContainerLab.open()
  const bundles = ['with', 'without', 'silent'].map(name =>
    lab.bundle(name, '', config => {
      config.process.args = ['/bin/true']
      if (name !== 'with') delete config.hooks
      if (name === 'silent') config.annotations = {}
    }),
  )
  const { status, stdout, stderr } = await lab.podman.execute(
    process.execPath,
    '-e',
    LOOP,
    String(rounds),
    ...bundles,
  )
  if (status !== 0) throw new Error(stderr)
  const [ours, plain] = JSON.parse(stdout) as [number[], number[]]
  const added = summarize(ours.map((ms, i) => ms - plain[i]!))
  for (const [name, samples] of [
    ['with the hook', ours],
    ['without', plain],
  ] as const) {
    const { min, median, p90 } = summarize(samples)
    console.log(`${name.padEnd(16)} ms: ${[min, median, p90].map(ms => ms.toFixed(2).padStart(8)).join('')}`)
  }
  const { min, median, p90 } = added
  console.log(
    `added            ms: ${[min, median, p90].map(ms => ms.toFixed(2).padStart(8)).join('')}  goal 3 ms: ${median < 3 ? 'met' : 'MISSED'}`,
  )
}

void main(Number(process.argv[2] ?? 50))
