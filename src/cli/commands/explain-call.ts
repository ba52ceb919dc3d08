/**
 * bpftoken explain -- WORDS: why the kernel refuses a call of bpf(2), and the smallest change. Of a
 * running process the calls that are named; of a command those that it makes.
 */
import { spawn } from 'node:child_process'
import { type Need, neededCapabilities } from '../../ebpf/rights.ts'
import { ATTACH_TYPES, MAP_TYPES, PROG_TYPES } from '../../ebpf/type-names.ts'
import { EXIT, UsageError } from '../../errors.ts'
import type { GuardEvent } from '../../guard/event.ts'
import type { Guard } from '../../guard/guard.ts'
import { callText, type Explanation, explainCall } from '../../lending/explain.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { type Situation, situationOfPid } from '../../lending/situation.ts'
import type { SeenCall } from '../../record/call.ts'
import { changeText } from '../change-text.ts'
import type { SocketOptions } from '../daemon/reach.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { installedGuard } from '../installed-guard.ts'
import { note, print, printJson } from '../output.ts'
import { requireRoot } from '../privilege.ts'
import type { RecipientOptions } from '../recipient.ts'

export interface ExplainCallOptions extends Omit<RecipientOptions, 'path'>, SocketOptions {
  fix?: boolean
  yes?: boolean
  policy?: string
  json?: boolean
}

/** What was explained, and how it is asked again. */
export interface Explained {
  readonly explained: Explanation | undefined
  /** Of a running process, which is looked at and not run. */
  readonly process?: { readonly situation: Situation; readonly needs: readonly Need[] }
}

export async function explainWords(words: string[], options: ExplainCallOptions): Promise<number> {
  return tell((await explainedOf(words, options)).explained, options)
}

/** Looks at a running process if one is named, else runs a command. */
export async function explainedOf(words: string[], options: ExplainCallOptions): Promise<Explained> {
  requireRoot('Looking at what another process may do')
  const { pid, container, unit, cgroup } = options
  const isRunning = [pid, container, unit, cgroup].some(name => name !== undefined)
  return isRunning ? await ofProcess(words, options) : { explained: await ofCommand(words) }
}

/** Exit 3: it is refused. */
export function tell(explained: Explanation | undefined, { json = false }: { json?: boolean }): number {
  if (explained === undefined) {
    if (json) printJson({ verdict: 'ok', cause: 'none' })
    else print('No call that asks for a right was refused')
    return EXIT.ok
  }
  if (json) printJson(documentOf(explained))
  else print(...explanationLines(explained))
  return explained.verdict === 'ok' ? EXIT.ok : EXIT.denied
}

export function documentOf(explained: Explanation): object {
  const checks = explained.checks.map(({ rule, needed, found, passed }) => ({
    ...{ name: rule.name, needed, found, passed, source: rule.source },
  }))
  return { ...explained, checks, change: changeText(explained) }
}

async function ofProcess(words: string[], options: ExplainCallOptions): Promise<Explained> {
  const needs = await needsOf(words)
  using recipient = await heldRecipient(options)
  using guard = await installedGuard()
  const situation = await situationOfPid(recipient.pid, guard)
  return { explained: firstRefused(situation, needs), process: { situation, needs } }
}

/** The first of the calls that is refused, or the last one. */
export function firstRefused(situation: Situation, needs: readonly Need[]): Explanation | undefined {
  const kernel = runningKernel()
  const all = needs.map(need => explainCall(kernel, situation, need))
  return all.find(({ verdict }) => verdict === 'refused') ?? all.at(-1)
}

async function needsOf(words: string[]): Promise<readonly Need[]> {
  const [first = '', type, attach, ...rest] = words
  const typed = <T>(read: () => T): T => {
    try {
      return read()
    } catch (cause) {
      throw new UsageError(`Not a call: ${(cause as Error).message}`, { cause })
    }
  }
  if (rest.length === 0 && first === 'map_create' && type !== undefined && attach === undefined)
    return [{ cmd: 'map_create', mapType: typed(() => MAP_TYPES.number(type as never)) }]
  if (rest.length === 0 && first === 'prog_load' && type !== undefined) {
    const attachType = typed(() => ATTACH_TYPES.number((attach ?? 0) as never))
    return [{ cmd: 'prog_load', progType: typed(() => PROG_TYPES.number(type as never)), attachType }]
  }
  if (words.length === 1 && (first === 'btf_load' || first === 'btf_get_fd_by_id')) return [{ cmd: first }]
  if (words.length !== 1)
    throw new UsageError(`Not a call: ${words.join(' ')}`, {
      hint: 'Say map_create TYPE, prog_load TYPE [ATTACH-TYPE], btf_load, btf_get_fd_by_id, or an object file',
    })
  const { readObjectFile } = await import('../object-files.ts')
  const { parseObject } = await import('../../ebpf/object/spec.ts')
  const { objectNeeds } = await import('../../needs/object.ts')
  return objectNeeds(parseObject(readObjectFile(first), { name: first })).needs.map(({ need }) => need)
}

/** The last refused call of a command, looked at while its process lives. */
export async function ofCommand(command: string[]): Promise<Explanation | undefined> {
  const { Recorder } = await import('../../record/recorder.ts')
  const refused: { call: SeenCall; situation: Promise<Situation | undefined> }[] = []
  using guard = await installedGuard()
  using recorder = await Recorder.start(
    call => {
      if (call.errno === undefined || call.need === undefined) return
      // Processes of other PID namespaces have no number here.
      const situation = call.pid === 0 ? undefined : situationOfPid(call.pid, guard).catch(() => undefined)
      refused.push({ call, situation: Promise.resolve(situation) })
      if (refused.length > MOST) refused.shift()
    },
    { logs: true },
  )
  const child = recorder.watchForked(() =>
    // The command's output is not the answer.
    spawn(command[0]!, command.slice(1), { stdio: ['inherit', 2, 2] }),
  )
  await new Promise<void>((resolve, reject) => {
    child.once('error', error => reject(new UsageError(`Cannot run ${command[0]}: ${error.message}`)))
    child.once('exit', () => resolve())
  })
  recorder.drain()
  const { lostCalls } = recorder.tally()
  if (lostCalls > 0) note(`${lostCalls} calls were not seen, for want of room`)
  if (refused.length === 0) return undefined
  const known = await Promise.all(refused.map(async one => ({ ...one, situation: await one.situation })))
  const seen = known.filter(({ situation }) => situation !== undefined)
  if (seen.length < known.length)
    note(`${known.length - seen.length} refused calls are of processes that ended before they were looked at`)
  const from = seen.length > 0 ? seen : known
  const last = from.findLast(({ call }) => call.errno === 'EPERM' || !call.reached) ?? from.at(-1)!
  const { situation } = last
  if (situation === undefined) return unseen(last.call)
  const event = guard && (await eventOf(guard, last.call))
  return explainCall(runningKernel(), situation, last.call.need!, { ...last.call, event })
}

/** Times of two clocks are compared, of which one has hundredths of a second. */
const CLOCK_NS = 20_000_000n

/** What the guard has recorded of the call, if it refused that. */
async function eventOf(guard: Guard, { at, tid }: SeenCall): Promise<GuardEvent | undefined> {
  const { bootTimeNs } = await import('../../guard/guard.ts')
  const since = at + bootTimeNs() - process.hrtime.bigint() - CLOCK_NS
  return guard
    .rememberedEvents()
    .findLast(event => event.tid === tid && event.verdict === 'refused' && event.timeNs >= since)
}

/** Refused calls that are kept. */
const MOST = 1000

/** Of a call by a process that nothing is known of. Pure. */
function unseen({ need, errno, reached }: SeenCall): Explanation {
  return {
    ...{ call: callText(need!), verdict: 'refused', errno, cause: reached ? 'unknown' : 'seccomp' },
    needed: 'to look at the process while it lives',
    found: 'it had ended',
    ...{
      capabilities: neededCapabilities(need!),
      policy: undefined,
      bpffs: undefined,
      notes: [],
      checks: [],
    },
  }
}

/** Pure. */
export function explanationLines(explained: Explanation): string[] {
  const { call, verdict, errno, cause, needed, found, bpffs, notes, checks } = explained
  return [
    verdict === 'ok'
      ? `${call}: allowed`
      : `${call}: refused${errno === undefined ? '' : ` (${errno})`}: ${cause}`,
    `  needed  ${needed}`,
    `  found   ${found}`,
    ...(bpffs === undefined ? [] : [`  bpffs   ${bpffs}`]),
    `  change  ${changeText(explained)}`,
    ...notes.map(text => `  note    ${text}`),
    ...(checks.length === 0 ? [] : ['  checks of the kernel:']),
    ...checks.map(({ rule, passed, found }) => `    ${passed ? 'passed' : 'failed'}  ${rule.name}: ${found}`),
  ]
}
