/** bpftoken guard, policy install, revoke, show and events: what only works where the guard can be loaded. */
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { requireGuard } from '../../delegation/delegate.ts'
import { EXIT, UsageError } from '../../errors.ts'
import { GUARD_DIRECTORY } from '../../guard/directory.ts'
import type { GuardEvent } from '../../guard/event.ts'
import { bootTimeNs, Guard, type GuardDelegation, type GuardMode } from '../../guard/guard.ts'
import { guardStatus, installGuard, removeGuard } from '../../guard/install.ts'
import { guardHolds } from '../../guard/terms.ts'
import { describeMask } from '../../policy/mask-text.ts'
import { formatDuration, formatSize } from '../../policy/quantity.ts'
import { MASK_DOMAINS, type Vocabulary } from '../../policy/vocabulary.ts'
import { columns, note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

const NS_PER_MS = 1_000_000n
const NS_PER_SEC = 1_000_000_000n

export interface InstallOptions {
  mode?: GuardMode
  audit?: boolean
  json?: boolean
}

export async function install(options: InstallOptions): Promise<number> {
  requireRoot('bpftoken guard install')
  const done = await installGuard(options.mode === undefined ? {} : { mode: options.mode })
  using guard = Guard.open()
  if (options.audit !== undefined) guard.configure({ audit: options.audit })
  const { mode, audit } = guard.config()
  if (options.json === true) printJson({ done, directory: GUARD_DIRECTORY, mode, audit })
  else print(`guard ${done} in ${GUARD_DIRECTORY}, mode ${mode}`)
  return EXIT.ok
}

export async function remove(options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken guard remove')
  await removeGuard()
  if (options.json === true) printJson({ done: 'removed', directory: GUARD_DIRECTORY })
  else print('guard removed: nothing but the kernel itself holds delegations to anything any more')
  return EXIT.ok
}

/** Exit 0: it is whole and enforces; 1: it does not. */
export async function status(options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken guard status')
  const found = guardStatus()
  using guard = Guard.openOrNull()
  const works = found.proven && found.missing?.length === 0
  if (options.json === true) {
    printJson({
      ...found,
      ...(guard === undefined
        ? {}
        : {
            mode: guard.config().mode,
            audit: guard.config().audit,
            totals: numbers(guard.totals()),
            policies: guard.policies(),
            delegations: guard.delegations().map(plain),
          }),
    })
    return works ? EXIT.ok : EXIT.failed
  }
  if (found.missing === undefined) print(`not installed in ${found.directory}`)
  else if (found.missing.length > 0)
    print(`incomplete, without ${found.missing.join(', ')}: run bpftoken guard install`)
  else
    print(
      `installed in ${found.directory}${found.current ? '' : ', by another version: run bpftoken guard install'}`,
    )
  print(
    found.proven
      ? 'enforces: the reserved mount option is refused'
      : 'does not enforce: the reserved mount option is taken',
  )
  if (guard !== undefined) describeGuard(guard)
  return works ? EXIT.ok : EXIT.failed
}

function describeGuard(guard: Guard): void {
  const { mode, audit } = guard.config()
  const { refused, wouldRefuse, lostEvents } = guard.totals()
  print(`mode ${mode}, events of ${audit ? 'everything' : 'refusals'}`)
  print(`refused ${refused}, would have refused ${wouldRefuse}, events lost ${lostEvents}`)
  print(`policies: ${guard.policies().join(', ') || 'none'}`)
  const delegations = guard.delegations()
  if (delegations.length === 0) {
    print('no delegation lives')
    return
  }
  const rows = delegations.map(one => [
    String(one.id),
    stateOf(one),
    `user:[${one.userNamespace}]`,
    String(one.live.tokens),
    String(one.live.programs),
    String(one.live.maps),
    formatSize(one.live.mapBytes),
  ])
  print(columns([['ID', 'STATE', 'USER NAMESPACE', 'TOKENS', 'PROGRAMS', 'MAPS', 'MAP BYTES'], ...rows]))
}

function stateOf({ revoked, expiresNs, mode }: GuardDelegation): string {
  if (revoked) return 'revoked'
  const also = mode === 'permissive' ? ', permissive' : ''
  if (expiresNs === undefined) return `live${also}`
  const left = expiresNs - bootTimeNs()
  return left <= 0n ? 'expired' : `live for ${formatDuration(Number(left / NS_PER_SEC) || 1)}${also}`
}

/** As `--json` has it: small numbers are numbers. */
function plain(one: GuardDelegation) {
  const { id, createdNs, expiresNs, live, ...rest } = one
  return {
    id: Number(id),
    ...rest,
    createdAt: wallTime(createdNs),
    ...(expiresNs === undefined ? {} : { expiresAt: wallTime(expiresNs) }),
    live: { ...live, mapBytes: Number(live.mapBytes) },
  }
}

function numbers(totals: object): Record<string, number> {
  return Object.fromEntries(Object.entries(totals).map(([name, value]) => [name, Number(value)]))
}

/** What the guard's clock meant, by our calendar of now. */
function wallTime(timeNs: bigint): string {
  return new Date(Date.now() - Number((bootTimeNs() - timeNs) / NS_PER_MS)).toISOString()
}

export async function policyInstall(paths: string[], options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken policy install')
  using guard = Guard.open()
  const vocabulary = await loadVocabulary()
  const files = paths.flatMap(filesAt)
  // All are read before any is installed: half a set of policies is none.
  const policies = await Promise.all(files.map(file => loadPolicy(file, vocabulary)))
  const names = policies.map(({ name }) => name)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new UsageError(`Two of these policies are called "${twice}"`)
  for (const policy of policies)
    for (const path of requireGuard(policy, guardHolds))
      note(`policy "${policy.name}": the guard does not enforce ${path} yet`)
  for (const policy of policies) guard.installPolicy(policy.name, policy)
  if (options.json === true) printJson({ installed: names })
  else print(`installed as abilities: ${names.join(', ')}`)
  return EXIT.ok
}

function filesAt(path: string): string[] {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return [path]
  const files = readdirSync(path)
    .filter(name => /\.ya?ml$/.test(name))
    .sort()
    .map(name => join(path, name))
  if (files.length === 0) throw new UsageError(`There is no policy (*.yaml) in ${path}`)
  return files
}

export function revoke(id: number, options: { json?: boolean }): number {
  requireRoot('bpftoken revoke')
  using guard = Guard.open()
  guard.revoke(BigInt(id))
  const { live } = guard.delegation(BigInt(id))
  if (options.json === true) printJson({ revoked: id, live: { ...live, mapBytes: Number(live.mapBytes) } })
  else {
    print(`delegation ${id} is revoked: its ${live.tokens} tokens are of no use any more`)
    if (live.programs > 0)
      print(
        `${live.programs} programs and ${live.maps} maps that were made with them go on until their holders exit`,
      )
  }
  return EXIT.ok
}

export async function show(id: number, options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken show')
  using guard = Guard.open()
  const found = guard.delegation(BigInt(id))
  if (options.json === true) printJson(plain(found))
  else print(describeDelegation(found, await loadVocabulary()))
  return EXIT.ok
}

function describeDelegation(one: GuardDelegation, vocabulary: Vocabulary): string {
  const { live } = one
  return columns([
    ['delegation', String(one.id)],
    ['state', stateOf(one)],
    ['made', `${wallTime(one.createdNs)} by process ${one.delegatorPid}`],
    ['for', `user:[${one.userNamespace}]`],
    ...MASK_DOMAINS.map(domain => [
      domain,
      describeMask(vocabulary, domain, one.masks[domain]).join(' ') || 'none',
    ]),
    [
      'live',
      `${live.tokens} tokens, ${live.programs} programs, ${live.maps} maps of ${formatSize(live.mapBytes)}`,
    ],
  ])
}

export async function events(options: { follow?: boolean; json?: boolean }): Promise<number> {
  requireRoot('bpftoken events')
  using guard = Guard.open()
  const tell = (event: GuardEvent): void =>
    print(options.json === true ? lineOfJson(event) : describeEvent(event))
  for (const event of guard.pastEvents()) tell(event)
  if (options.follow === true) {
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
    try {
      for await (const event of guard.events({ signal: stop.signal })) tell(event)
    } catch (error) {
      if (!stop.signal.aborted) throw error
    }
  }
  const { lostEvents } = guard.totals()
  if (lostEvents > 0n) note(`${lostEvents} events were lost since the guard was installed, for want of room`)
  return EXIT.ok
}

/** JSON Lines. */
function lineOfJson({ timeNs, delegation, cgroup, ...rest }: GuardEvent): string {
  return JSON.stringify({
    time: wallTime(timeNs),
    ...(delegation === undefined ? {} : { delegation: Number(delegation) }),
    ...rest,
    cgroup: Number(cgroup),
  })
}

function describeEvent(event: GuardEvent): string {
  const { timeNs, verdict, point, reason, delegation, task, pid, uid, type, name } = event
  const what = [point, type, name === '' ? undefined : `"${name}"`]
    .filter(part => part !== undefined)
    .join(' ')
  const why = reason === 'none' ? '' : ` (${reason})`
  const of = delegation === undefined ? '' : ` delegation ${delegation},`
  return `${wallTime(timeNs)} ${verdict} ${what}${why}:${of} ${task} ${pid} uid ${uid}`
}
