/**
 * bpftoken explain -- WORDS: why the kernel refuses a call of bpf(2), and the smallest change. Of a
 * running process the calls that are named; of a command those that it makes.
 */
import type { Need } from '../../ebpf/rights.ts'
import { ATTACH_TYPES, CMDS, MAP_TYPES, PROG_TYPES, type TypeNames } from '../../ebpf/type-names.ts'
import { EXIT, UsageError } from '../../errors.ts'
import { type Explanation, explainCall } from '../../lending/explain.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { type Situation, situationOfPid } from '../../lending/situation.ts'
import { nearest } from '../../policy/nearest.ts'
import { changeText } from '../change-text.ts'
import type { SocketOptions } from '../daemon/reach.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { installedGuard } from '../installed-guard.ts'
import { note, print, printJson } from '../output.ts'
import { requireRootToWatch } from '../privilege.ts'
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
  /** Of a command that was run; as a shell has it. */
  readonly status?: number
  /** Of a running process, which is looked at and not run. */
  readonly process?: {
    readonly situation: Situation
    readonly explain: (situation: Situation) => Explanation | undefined
  }
}

export async function explainWords(words: string[], options: ExplainCallOptions): Promise<number> {
  return tell(await explainedOf(words, options), options)
}

/** Looks at a running process if one is named, else runs a command. */
export async function explainedOf(words: string[], options: ExplainCallOptions): Promise<Explained> {
  requireRootToWatch('Looking at what another process may do')
  const { pid, container, unit, cgroup } = options
  const isRunning = [pid, container, unit, cgroup].some(name => name !== undefined)
  if (isRunning) return await ofProcess(words, options)
  const [name = ''] = words
  if (isCall(name))
    throw new UsageError(`Of whom ${name} is asked is not said`, {
      hint:
        'Name the process: --pid, --container, --unit or --cgroup. A command of that name is said as ./' +
        name,
    })
  return await (await import('./explain-run.ts')).ofCommand(words)
}

/** Exit 3: it is refused; 1: no call was, and the command has failed. */
export function tell({ explained, status }: Explained, { json = false }: { json?: boolean }): number {
  if (explained === undefined) return tellNone(status, json)
  if (json) printJson(documentOf(explained, status))
  else print(...explanationLines(explained, status))
  return explained.verdict === 'ok' ? EXIT.ok : EXIT.denied
}

export interface ExplanationDocument extends Omit<Explanation, 'checks'> {
  readonly checks: readonly {
    readonly name: string
    readonly needed: string
    readonly found: string
    readonly passed: boolean
    readonly source: string
  }[]
  readonly change: string
  readonly command?: { readonly status: number }
}

function tellNone(status: number | undefined, json: boolean): number {
  const verdict = status === undefined || status === 0 ? 'ok' : 'failed'
  if (json) printJson({ verdict, cause: 'none', ...commandOf(status) })
  else print(`No call that asks for a right was refused${verdict === 'ok' ? '' : `; ${endText(status!)}`}`)
  return verdict === 'ok' ? EXIT.ok : EXIT.failed
}

/** What its refused call means to the command. */
export function endText(status: number): string {
  const end = `the command ended with status ${status}`
  return status === 0 ? `${end}: it has done without` : end
}

export function documentOf(explained: Explanation, status?: number): ExplanationDocument {
  const checks = explained.checks.map(({ rule, needed, found, passed }) => ({
    ...{ name: rule.name, needed, found, passed, source: rule.source },
  }))
  return { ...explained, checks, change: changeText(explained), ...commandOf(status) }
}

const commandOf = (status: number | undefined): { readonly command?: { readonly status: number } } =>
  status === undefined ? {} : { command: { status } }

async function ofProcess(words: string[], options: ExplainCallOptions): Promise<Explained> {
  using recipient = await heldRecipient({ ...options, ...(await livingOf(options.pid)) })
  const explain = await explainerOf(words, recipient.pid)
  using guard = await installedGuard()
  const situation = await situationOfPid(recipient.pid, guard)
  return { explained: explain(situation), process: { situation, explain } }
}

/** Of a process that goes on without its first thread, another one. */
async function livingOf(pid: number | undefined): Promise<{ pid?: number }> {
  if (pid === undefined) return {}
  const { livingThread } = await import('../../lending/causes/threads.ts')
  const thread = livingThread(pid)
  if (thread === undefined || thread === pid) return {}
  note(`the first thread of process ${pid} has ended: thread ${thread} is looked at`)
  return { pid: thread }
}

/** UsageError: that is no call, and no object. */
async function explainerOf(
  words: string[],
  pid: number,
): Promise<(of: Situation) => Explanation | undefined> {
  // A call that asks a token needs none of this, and start-up is felt.
  if (!isOther(words)) {
    const needs = await needsOf(words)
    return situation => firstRefused(situation, needs)
  }
  const { otherCallOf } = await import('../other-call-words.ts')
  const { explainOther } = await import('../../lending/other-call.ts')
  const call = await otherCallOf(words, pid)
  return situation => explainOther(runningKernel(), situation, call)
}

/** Whether it is a call for which no token is asked, by the look of it. */
function isOther([first = '', ...rest]: readonly string[]): boolean {
  return (
    first !== 'btf_get_fd_by_id' &&
    (/^(prog|map|btf|link)_get_(next_id|fd_by_id)$/.test(first) ||
      ['enable_stats', 'task_fd_query', 'perf_event_open'].includes(first) ||
      (rest.length > 0 && /^(link_create|prog_(attach|detach|query)|obj_(pin|get))$/.test(first)))
  )
}

/** The first of the calls that is refused, or the last one. */
export function firstRefused(situation: Situation, needs: readonly Need[]): Explanation | undefined {
  const kernel = runningKernel()
  const all = needs.map(need => explainCall(kernel, situation, need))
  return all.find(({ verdict }) => verdict === 'refused') ?? all.at(-1)
}

/** Whether a call has that name, whatever else it takes. */
function isCall(word: string): boolean {
  return CMDS.words().some(name => name === word) || word === 'perf_event_open'
}

const MOST_U32 = 0xffff_ffff

/** UsageError: there is none of that name, or the number has more than 32 bits. */
function numberIn<W extends string>(types: TypeNames<W>, word: string): number {
  const number = numberOf(types, word)
  if (number <= MOST_U32) return number
  throw new UsageError(`Not a call: ${word} has more than 32 bits`)
}

function numberOf<W extends string>(types: TypeNames<W>, word: string): number {
  try {
    return types.number(word as W)
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    const known = types.words()
    const meant = nearest(word.toLowerCase(), known)
    throw new UsageError(`Not a call: ${error.message}`, {
      hint: meant === undefined ? `There are ${known.join(', ')}` : `Did you mean ${meant}?`,
    })
  }
}

async function needsOf(words: string[]): Promise<readonly Need[]> {
  const [first = '', type, attach, ...rest] = words
  if (rest.length === 0 && first === 'map_create' && type !== undefined && attach === undefined)
    return [{ cmd: 'map_create', mapType: numberIn(MAP_TYPES, type) }]
  if (rest.length === 0 && first === 'prog_load' && type !== undefined) {
    const attachType = numberIn(ATTACH_TYPES, attach ?? '0')
    return [{ cmd: 'prog_load', progType: numberIn(PROG_TYPES, type), attachType }]
  }
  if (words.length === 1 && (first === 'btf_load' || first === 'btf_get_fd_by_id')) return [{ cmd: first }]
  if (words.length !== 1 || isCall(first))
    throw new UsageError(`Not a call: ${words.join(' ')}`, {
      hint: 'Say map_create TYPE, prog_load TYPE [ATTACH-TYPE], btf_load, btf_get_fd_by_id, link_create, prog_attach, prog_detach or prog_query ATTACH-TYPE, obj_pin or obj_get PATH, prog_get_next_id and the like, or an object file',
    })
  const { readObjectFile } = await import('../object-files.ts')
  const { parseObject } = await import('../../ebpf/object/spec.ts')
  const { objectNeeds } = await import('../../needs/object.ts')
  return objectNeeds(parseObject(readObjectFile(first), { name: first })).needs.map(({ need }) => need)
}

export function explanationLines(explained: Explanation, status?: number): string[] {
  return documentLines(documentOf(explained, status))
}

/** Pure. */
export function documentLines(of: ExplanationDocument): string[] {
  const { call, verdict, errno, cause, needed, found, bpffs, change, notes, checks, command } = of
  return [
    verdict === 'ok'
      ? `${call}: allowed`
      : `${call}: refused${errno === undefined ? '' : ` (${errno})`}: ${cause}`,
    `  needed  ${needed}`,
    `  found   ${found}`,
    ...(bpffs === undefined ? [] : [`  bpffs   ${bpffs}`]),
    `  change  ${change}`,
    ...notes.map(text => `  note    ${text}`),
    ...(command === undefined ? [] : [`  end     ${endText(command.status)}`]),
    ...(checks.length === 0 ? [] : ['  checks of the kernel:']),
    ...checks.map(({ name, passed, found }) => `    ${passed ? 'passed' : 'failed'}  ${name}: ${found}`),
  ]
}
