/** bpftoken record: watches what a run asks of bpf(2), and writes the least policy for it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { constants } from 'node:os'
import { basename } from 'node:path'
import { quoted } from '../../ebpf/printable.ts'
import { ConflictError, EXIT, UsageError } from '../../errors.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { cgroupIdOf, cgroupOfProcess, otherPidNamespace } from '../../record/cgroup.ts'
import { Recorder, type Watched } from '../../record/recorder.ts'
import { type Recording, recordingOf } from '../../record/recording.ts'
import { Seen } from '../../record/seen.ts'
import { incompleteText, recordingText } from '../../record/text.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { Interrupted, interruption } from '../interrupted.ts'
import { note, print, printJson, warn } from '../output.ts'
import { outputFile, writeOutput } from '../output-file.ts'
import { requireRootToWatch } from '../privilege.ts'

export interface RecordOptions {
  output?: string
  pid?: number
  container?: string
  unit?: string
  cgroup?: string
  json?: boolean
}

/** `tokens`: whether this kernel has any. */
type How = Omit<RecordOptions, 'output'> & { readonly output: string | undefined; readonly tokens: boolean }

/** Of a command: its own exit status. Else 0; 1: calls were lost. */
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
  const how = { ...options, output: outputFile(options), tokens }
  return command.length > 0 ? recordCommand(command, how) : recordRunning(how)
}

async function recordCommand(command: string[], options: How): Promise<number> {
  const seen = new Seen()
  using recorder = await Recorder.start(call => seen.add(call))
  // Where the answer goes to stdout it stands there alone.
  const isAnswer = options.json === true || options.output === undefined
  const start = (): ChildProcess =>
    spawn(command[0]!, command.slice(1), { stdio: ['inherit', isAnswer ? 2 : 'inherit', 'inherit'] })
  const status = await ended(() => recorder.watchForked(start), command[0]!)
  const left = recorder.living().length
  if (left > 0) note(`${left} of its processes live on, and are not watched any more`)
  finish(recorder, seen, { what: command.join(' '), name: basename(command[0]!) }, options)
  return status
}

async function recordRunning(options: How): Promise<number> {
  const seen = new Seen()
  const until = interruption()
  const add = (call: Parameters<Seen['add']>[0]): void => seen.add(call)
  let what: { what: string; name: string }
  let complete: boolean
  if (options.pid !== undefined) {
    what = { what: `process ${options.pid}`, name: `process-${options.pid}` }
    using recorder = await Recorder.start(add)
    const end = recorder.watchUntilEnd(options.pid, until)
    note(`watching ${what.what} and its children until it ends, or until interrupted`)
    await unlessInterrupted(end)
    complete = finish(recorder, seen, what, options)
  } else {
    const { watched, ...named } = await groupOf(options)
    what = named
    using recorder = await Recorder.start(add, watched)
    note(`watching ${what.what} and all below until interrupted`)
    await unlessInterrupted(aborted(until))
    complete = finish(recorder, seen, what, options)
  }
  return complete ? EXIT.ok : EXIT.failed
}

/**
 * The cgroup that is named, or that of the container or unit. A container without one of its own
 * has a PID namespace for it.
 */
async function groupOf(options: How): Promise<{ watched: Watched; what: string; name: string }> {
  const { container, unit, cgroup } = options
  if (cgroup !== undefined && container === undefined && unit === undefined)
    return { watched: { cgroup: cgroupIdOf(cgroup) }, what: cgroup, name: basename(cgroup) }
  // UsageError: several are named.
  using recipient = await heldRecipient(options)
  const name = container ?? unit!
  const named = container === undefined ? name : `container ${name}`
  const group = (): Awaited<ReturnType<typeof groupOf>> => {
    try {
      const directory = cgroupOfProcess(recipient.pid)
      return { watched: { cgroup: cgroupIdOf(directory) }, what: `${named} in ${directory}`, name }
    } catch (error) {
      const pidNamespace = container === undefined ? undefined : otherPidNamespace(recipient.pid)
      if (!(error instanceof ConflictError) || pidNamespace === undefined) throw error
      return { watched: { pidNamespace }, what: `${named} in its PID namespace`, name }
    }
  }
  const found = group()
  // Throws where it has ended meanwhile, and somebody else has its number.
  recipient.userNamespace()
  return found
}

/** Writes what was seen. False: something is missing. */
function finish(
  recorder: Recorder,
  seen: Seen,
  { what, name }: { what: string; name: string },
  { output, json, tokens }: How,
): boolean {
  recorder.drain()
  const recording = recordingOf(seen.calls, recorder.tally(), seen.dropped)
  const now = Date.now()
  const nowMonotonic = process.hrtime.bigint()
  const dateOf = (at: bigint): Date => new Date(now - Number((nowMonotonic - at) / 1_000_000n))
  for (const line of incompleteText(recording)) warn(line)
  const policy = recordingText(recording, { what, name: policyName(name), hasTokens: tokens, dateOf })
  if (output !== undefined) writeOutput(output, `${policy.join('\n')}\n`)
  if (json === true) printJson({ watched: what, tokens, ...documentOf(recording, dateOf) })
  else if (output === undefined) print(...policy)
  else note(`${output}: ${recording.rights.length} rights of ${recording.calls} calls`)
  return recording.complete
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

/** From a terminal these reach the command without us. */
const TYPED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT']
const FORWARDED: readonly NodeJS.Signals[] = [...TYPED, 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']

/** The exit status, as a shell has it. Signals to us are the command's meanwhile. */
function ended(start: () => ChildProcess, program: string): Promise<number> {
  const isShared = process.stdin.isTTY === true
  const handlers = FORWARDED.map(signal => {
    const handler = (): void => {
      if (!isShared || !TYPED.includes(signal)) child.kill(signal)
    }
    process.on(signal, handler)
    return () => process.off(signal, handler)
  })
  const remove = (): void => {
    for (const one of handlers) one()
  }
  let child: ChildProcess
  try {
    // It is there before any handler runs.
    child = start()
  } catch (error) {
    remove()
    throw error
  }
  return new Promise<number>(resolve => {
    // As env(1) and shells do: 127 not found, 126 found but not executable.
    child.once('error', (error: NodeJS.ErrnoException) => {
      warn(`cannot run ${quoted(program)}: ${error.code}`)
      resolve(error.code === 'ENOENT' ? 127 : 126)
    })
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]))
  }).finally(remove)
}
