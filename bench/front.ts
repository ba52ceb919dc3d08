/**
 * `bpftoken run -- true` with the daemon up, beside unshare(1) making the same namespaces, in
 * pairs: for an ordinary user, and for root. And beside systemd-run, where there is one that lends.
 */
import { execFile, spawn, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { frontPath } from '../src/sys/prebuilt.ts'
import { compile } from './c-program.ts'
import { DIST } from './dist.ts'
import { type Summary, summarize } from './stats.ts'

const execute = promisify(execFile)

const UID = 4711
const NAMESPACES = ['unshare', '--user', '--map-root-user', '--mount', '--net', 'true']
const SYSTEMD = [
  'systemd-run',
  '--quiet',
  '--wait',
  '--pipe',
  '-p',
  'PrivateUsers=yes',
  '-p',
  'PrivateBPF=yes',
  'true',
]

const policy = (name: string, uid: number): string => `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: ${name} }
spec:
  subjects: [{ user: ${uid} }]
  rights: { cmds: [map_create, prog_load], maps: [array], progs: [xdp], attachs: [xdp], capabilities: [bpf, net_admin] }
  network: host
`

/** Milliseconds from start to end. */
export interface FrontResult {
  readonly costs: Readonly<Record<string, Summary>>
  /** Beyond unshare(1), of the same round. */
  readonly over: Readonly<Record<string, Summary>>
  readonly goalMs: number
  /** Why systemd-run is not among them. */
  readonly without: string | undefined
}

export async function measureFront(roundCount: number): Promise<FrontResult> {
  const stage = mkdtempSync(path.join(tmpdir(), 'bpftoken-bench-'))
  chmodSync(stage, 0o755)
  const socket = path.join(stage, 'socket')
  const daemon = await startDaemon(stage, socket)
  try {
    // The launcher is looked for beside it.
    for (const name of ['bpftoken-run', 'bpftoken-launch'])
      copyFileSync(path.join(path.dirname(frontPath()), name), path.join(stage, name))
    const front = (name: string): string[] => [
      path.join(stage, 'bpftoken-run'),
      'run',
      '--socket',
      socket,
      '--policy',
      name,
      '--',
      'true',
    ]
    const asUser = ['setpriv', `--reuid=${UID}`, `--regid=${UID}`, '--clear-groups']
    const systemd = spawnSync(SYSTEMD[0]!, SYSTEMD.slice(1), { encoding: 'utf8' })
    const { costs, over } = await inPairs(
      {
        'unshare, user': [...asUser, ...NAMESPACES],
        'run, user': [...asUser, ...front('user')],
        'unshare, root': NAMESPACES,
        'run, root': front('nobody'),
        ...(systemd.status === 0 ? { 'systemd-run, root': SYSTEMD } : {}),
      },
      roundCount,
    )
    const without =
      systemd.status === 0 ? undefined : (systemd.stderr ?? 'it is not installed').trim().split('\n')[0]
    return { costs, over, goalMs: 10, without }
  } finally {
    daemon.kill()
    rmSync(stage, { recursive: true, force: true })
  }
}

async function startDaemon(stage: string, socket: string): Promise<ReturnType<typeof spawn>> {
  const [policies, config] = ['policies', 'config.yaml'].map(name => path.join(stage, name))
  mkdirSync(policies!)
  writeFileSync(path.join(policies!, 'user.yaml'), policy('user', UID))
  writeFileSync(path.join(policies!, 'nobody.yaml'), policy('nobody', 65534))
  writeFileSync(config!, 'limits: { requestsPerMinute: 100000 }\n')
  const words = [
    '--socket',
    socket,
    '--policies',
    policies!,
    '--config',
    config!,
    '--state',
    path.join(stage, 'state'),
  ]
  const daemon = spawn(process.execPath, [path.join(DIST, 'daemon/main.js'), ...words], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  await new Promise<void>((resolve, reject) => {
    daemon.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (said.includes('is ready')) resolve()
    })
    daemon.once('exit', () => reject(new Error(`bpftokend ended: ${said}`)))
  })
  return daemon
}

async function inPairs(
  commands: Readonly<Record<string, readonly string[]>>,
  roundCount: number,
): Promise<Pick<FrontResult, 'costs' | 'over'>> {
  const program = compile('cost')
  const walls: Record<string, number[]> = Object.fromEntries(Object.keys(commands).map(name => [name, []]))
  // The first rounds warm up the daemon, too.
  for (let round = -5; round < roundCount; round++)
    for (const [name, words] of Object.entries(commands)) {
      const [wall] = (await execute(program, words)).stdout.split(' ').map(Number)
      if (round >= 0) walls[name]!.push(wall! / 1e6)
    }
  const over = Object.entries(walls)
    .filter(([name]) => !name.startsWith('unshare'))
    .map(([name, samples]) => {
      const beside = walls[`unshare, ${name.split(', ')[1]}`]!
      return [name, summarize(samples.map((wall, round) => wall - beside[round]!))]
    })
  const costs = Object.entries(walls).map(([name, samples]) => [name, summarize(samples)])
  return { costs: Object.fromEntries(costs), over: Object.fromEntries(over) }
}
