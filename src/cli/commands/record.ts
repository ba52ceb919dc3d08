/** bpftoken record: watches what a run asks of bpf(2), and writes the least policy for it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { basename } from 'node:path'
import { quoted } from '../../ebpf/printable.ts'
import { ConflictError, EXIT, NotFoundError, UsageError } from '../../errors.ts'
import type { Guard } from '../../guard/guard.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { cgroupOfUnit } from '../../lending/recipient/unit.ts'
import type { SeenCall } from '../../record/call.ts'
import { cgroupIdOf, cgroupOfProcess, otherPidNamespace } from '../../record/cgroup.ts'
import { Recorder, type Watched } from '../../record/recorder.ts'
import { type Recording, recordingOf } from '../../record/recording.ts'
import { Seen } from '../../record/seen.ts'
import { incompleteText, recordingText } from '../../record/text.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { forwardSignals } from '../forward-signals.ts'
import { installedGuard } from '../installed-guard.ts'
import { Interrupted, interruption } from '../interrupted.ts'
import { note, print, printJson, warn } from '../output.ts'
import { OpenOutput, outputFile } from '../output-file.ts'
import { requireRootToWatch } from '../privilege.ts'
import { recipientName } from '../recipient.ts'
import { keepRefusals, Refusals } from '../recorded-refusals.ts'

export interface RecordOptions {
  output?: string
  pid?: number
  container?: string
  unit?: string
  cgroup?: string
  json?: boolean
}

/** `tokens`: whether this kernel has any. */
type How = Omit<RecordOptions, 'output'> & {
  readonly output: string | undefined
  /** The same, before anything is watched. */
  readonly file: OpenOutput | undefined
  readonly tokens: boolean
}

/** Of a command: its own exit status. Else 0; 1: calls were lost, or the file could not be written. */
export async function record(command: string[], options: RecordOptions): Promise<number> {
  requireRootToWatch('Watching what processes ask of bpf(2)')
  const running = [options.pid, options.container, options.unit, options.cgroup]
  const named = running.filter(one => one !== undefined).length + (command.length > 0 ? 1 : 0)
  if (named !== 1)
    throw new UsageError(
      named === 0
        ? 'Nothing is named that is to be watched'
        : 'Only one can be watched, and several are named',
      { hint: 'Give a command after --, or one of --pid, --container, --unit and --cgroup' },
    )
  const tokens = runningKernel().hasTokens
  if (!tokens) note('this kernel has no BPF tokens: the policy is for Linux 6.9 or newer')
  const output = outputFile(options)
  using file = output === undefined ? undefined : new OpenOutput(output)
  const how = { ...options, output, file, tokens }
  if (command[0] === '') throw new UsageError('No command is given: its name is empty')
  return command.length > 0 ? await recordCommand(command, how) : await recordRunning(how)
}

async function recordCommand(command: string[], options: How): Promise<number> {
  using guard = await installedGuard()
  const watching = new Watching(guard)
  using recorder = await Recorder.start(call => watching.add(call))
  // Where the answer goes to stdout it stands there alone.
  const isAnswer = options.json === true || options.output === undefined
  const start = (): ChildProcess =>
    spawn(command[0]!, command.slice(1), { stdio: ['inherit', isAnswer ? 2 : 'inherit', 'inherit'] })
  const status = await ended(() => recorder.watchForked(start), command[0]!)
  const left = recorder.living().length
  if (left > 0) note(`${left} of its processes live on, and are not watched any more`)
  // Arguments may hold what is nobody else's business, and the policy is shown to others.
  const what = `${command[0]!}${command.length > 1 ? ' with arguments' : ''}`
  const { isWritten } = await finish(recorder, watching, { what, name: basename(command[0]!) }, options)
  return isWritten ? status : status || EXIT.failed
}

async function recordRunning(options: How): Promise<number> {
  using guard = await installedGuard()
  const watching = new Watching(guard)
  const until = interruption()
  const add = (call: SeenCall): void => watching.add(call)
  let what: { what: string; name: string }
  let complete: boolean
  if (options.pid !== undefined) {
    what = { what: `process ${options.pid}`, name: `process-${options.pid}` }
    using recorder = await Recorder.start(add)
    const end = recorder.watchUntilEnd(options.pid, until)
    note(`watching ${what.what} and its children until it ends, or until interrupted`)
    await unlessInterrupted(end)
    complete = isWhole(await finish(recorder, watching, what, options))
  } else {
    const { watched, ...named } = await groupOf(options)
    what = named
    using recorder = await Recorder.start(add, watched)
    note(`watching ${what.what} and all below until interrupted`)
    await unlessInterrupted(aborted(until))
    complete = isWhole(await finish(recorder, watching, what, options))
  }
  return complete ? EXIT.ok : EXIT.failed
}

/**
 * The cgroup that is named, or that of the container or unit. A container without one of its own
 * has a PID namespace for it. A unit need not be one that can be lent to: it is watched as root.
 */
async function groupOf(options: How): Promise<{ watched: Watched; what: string; name: string }> {
  const { container, unit, cgroup } = options
  if (cgroup !== undefined && container === undefined && unit === undefined)
    return { watched: { cgroup: cgroupIdOf(cgroup) }, what: cgroup, name: basename(cgroup) }
  // UsageError: several are named.
  const wanted = recipientName(options)
  if ('unit' in wanted) {
    const directory = await cgroupOfUnit(wanted.unit, wanted.owner)
    const name = unit!
    return { watched: { cgroup: cgroupIdOf(directory) }, what: `unit ${name} in ${directory}`, name }
  }
  using recipient = await heldRecipient(options)
  const name = container!
  const named = `container ${name}`
  const group = (): Awaited<ReturnType<typeof groupOf>> => {
    try {
      const directory = cgroupOfProcess(recipient.pid)
      return { watched: { cgroup: cgroupIdOf(directory) }, what: `${named} in ${directory}`, name }
    } catch (error) {
      const pidNamespace = otherPidNamespace(recipient.pid)
      if (!(error instanceof ConflictError) || pidNamespace === undefined) throw error
      return { watched: { pidNamespace }, what: `${named} in its PID namespace`, name }
    }
  }
  const found = group()
  // Throws where it has ended meanwhile, and somebody else has its number.
  recipient.userNamespace()
  return found
}

interface Finished {
  readonly isComplete: boolean
  readonly isWritten: boolean
}
const isWhole = ({ isComplete, isWritten }: Finished): boolean => isComplete && isWritten

/** What is kept of calls: those that ask for rights, and those that were refused. */
class Watching {
  readonly seen: Seen = new Seen()
  readonly refusals: Refusals

  constructor(guard: Guard | undefined) {
    this.refusals = new Refusals(guard)
  }

  add(call: SeenCall): void {
    this.seen.add(call)
    this.refusals.see(call)
  }
}

/** Writes what was seen: where the file does not take it, to standard output. */
async function finish(
  recorder: Recorder,
  { seen, refusals }: Watching,
  { what, name }: { what: string; name: string },
  { output, file, json, tokens }: How,
): Promise<Finished> {
  recorder.drain()
  const recording = recordingOf(seen.calls, recorder.tally(), seen.dropped)
  const now = Date.now()
  const nowMonotonic = process.hrtime.bigint()
  const dateOf = (at: bigint): Date => new Date(now - Number((nowMonotonic - at) / 1_000_000n))
  for (const line of incompleteText(recording)) warn(line)
  const policy = recordingText(recording, { what, name: policyName(name), hasTokens: tokens, dateOf })
  const isWritten = file === undefined || written(file, `${policy.join('\n')}\n`)
  if (json === true) printJson({ watched: what, tokens, ...documentOf(recording, dateOf) })
  else if (output === undefined || !isWritten) print(...policy)
  else note(`${output}: ${recording.rights.length} rights of ${recording.calls} calls`)
  if (!keepRefusals(await refusals.explained(dateOf)))
    warn('what was refused could not be kept for bpftoken explain --last')
  return { isComplete: recording.complete, isWritten }
}

/** False, with a warning: what was seen must not be lost for it. */
function written(file: OpenOutput, text: string): boolean {
  try {
    file.write(text)
    return true
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error
    warn(error.message)
    return false
  }
}

/** Moments as RFC 3339 has them. */
function documentOf(recording: Recording, dateOf: (at: bigint) => Date): object {
  const dated = <T extends { readonly askers: readonly { readonly first: bigint }[] }>(all: readonly T[]) =>
    all.map(one => ({
      ...one,
      askers: one.askers.map(asker => ({ ...asker, first: dateOf(asker.first).toISOString() })),
    }))
  const { rights, capabilities, leftOut, unserved, withoutToken } = recording
  return {
    ...recording,
    ...{ rights: dated(rights), capabilities: dated(capabilities) },
    ...{ leftOut: dated(leftOut), unserved: dated(unserved) },
    withoutToken: dated([{ askers: withoutToken }])[0]!.askers,
  }
}

/** A DNS label. */
function policyName(text: string): string {
  const name = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 63)
    .replace(/^-+|-+$/g, '')
  return name === '' ? 'recorded' : name
}

async function unlessInterrupted(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
  }
}

/** Rejects with the reason. Keeps Node alive until then. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const alive = setInterval(() => {}, 2 ** 30)
    const done = (): void => {
      clearInterval(alive)
      reject(signal.reason)
    }
    if (signal.aborted) done()
    else signal.addEventListener('abort', done)
  })
}

/** The exit status, as a shell has it. Signals to us are the command's meanwhile. */
async function ended(start: () => ChildProcess, program: string): Promise<number> {
  // It is there before any handler runs.
  let child: ChildProcess
  using _ = forwardSignals(signal => child.kill(signal))
  child = start()
  return await new Promise<number>(resolve => {
    // As env(1) and shells do: 127 not found, 126 found but not executable.
    child.once('error', (error: NodeJS.ErrnoException) => {
      warn(`cannot run ${quoted(program)}: ${error.code}`)
      resolve(error.code === 'ENOENT' ? 127 : 126)
    })
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]))
  })
}
