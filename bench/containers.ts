/**
 * What the hook adds to `crun run /bin/true`, with the daemon up: the same bundle with the hook and
 * without, in pairs. Where Podman's crun is, as for the tests. And how long bpftoken-nri takes to
 * answer, when fifty pods that ask are made at once.
 *
 *   tsx bench/containers.ts [ROUNDS]
 */
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import {
  ConfigureRequestSchema,
  CreateContainerRequestSchema,
  SynchronizeRequestSchema,
} from '../src/nri/messages/nri_pb.ts'
import { Bpftokend } from '../test/helpers/bpftokend.ts'
import { ContainerLab } from '../test/helpers/container-lab.ts'
import { NriPlugin } from '../test/helpers/nri-plugin.ts'
import { talkTo } from '../test/helpers/nri-runtime.ts'
import { Scratch } from '../test/helpers/scratch.ts'
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

async function measureHook(rounds: number): Promise<void> {
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

const PODS = 50
const BURSTS = 20

/**
 * A runtime that makes nothing asks the real plugin, which tells a real daemon before it answers.
 * The first time does not count: both compile then.
 */
async function measureAnswers(): Promise<void> {
  using scratch = new Scratch()
  await using daemon = await new Bpftokend(scratch.path).ready()
  const nri = join(scratch.path, 'nri.sock')
  const connected = new Promise<Socket>(resolve => {
    const server = createServer(socket => {
      server.close()
      resolve(socket)
    }).listen(nri)
  })
  await using _plugin = new NriPlugin({ nri }, daemon, '--log-level', 'warn')
  const ask = talkTo(await connected)
  await ask('Configure', toBinary(ConfigureRequestSchema, create(ConfigureRequestSchema)))
  await ask('Synchronize', toBinary(SynchronizeRequestSchema, create(SynchronizeRequestSchema)))
  const times: number[] = []
  for (let burst = 0; burst <= BURSTS; burst++)
    await Promise.all(
      Array.from({ length: PODS }, async (_, i) => {
        const name = `${burst}-${i}`
        const annotations = { 'bpftoken.dev/policy': 'dev' }
        const pod = { id: `p${name}`, name, namespace: 'shop', uid: `u${name}`, annotations }
        const request = create(CreateContainerRequestSchema, { pod, container: { id: `c${name}`, name } })
        const begin = performance.now()
        await ask('CreateContainer', toBinary(CreateContainerRequestSchema, request))
        if (burst > 0) times.push(performance.now() - begin)
      }),
    )
  times.sort((a, b) => a - b)
  const [median, p99] = [0.5, 0.99].map(part => times[Math.floor(part * times.length)]!) as [number, number]
  console.log(
    `answers of NRI, ${PODS} at once, ${BURSTS} times, ms: median ${median.toFixed(1)}, p99 ${p99.toFixed(1)}  goal 20 ms: ${p99 < 20 ? 'met' : 'MISSED'}`,
  )
}

async function main(rounds: number): Promise<void> {
  await measureHook(rounds)
  await measureAnswers()
}

void main(Number(process.argv[2] ?? 50))
