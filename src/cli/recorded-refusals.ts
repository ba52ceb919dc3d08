/**
 * Refused calls that `bpftoken record` has seen, each explained, for `bpftoken explain --last`. They
 * are kept until the next boot, in a file that only root can read, and the next recording that sees
 * some takes its place.
 *
 * A watched process chooses what its own calls are, and nothing else: who has made one, and when, the
 * kernel says.
 */
import { lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Guard } from '../guard/guard.ts'
import { runningKernel } from '../lending/kernel-model.ts'
import { explainSeen, explainUnseen, isExplained, type Looked, lookAt } from '../lending/seen-refusal.ts'
import type { SeenCall } from '../record/call.ts'
import { notOwnersAlone } from '../uapi/file-owner.ts'
import { documentOf } from './commands/explain-call.ts'

/** One kind of call of one process. */
export interface RecordedRefusal {
  /** The last time; RFC 3339. */
  readonly at: string
  readonly task: string
  readonly pid: number
  readonly uid: number
  readonly times: number
  /** As `bpftoken explain --json` has it. */
  readonly explained: ReturnType<typeof documentOf>
}

interface Kind {
  call: SeenCall
  times: number
  readonly looked: Promise<Looked | undefined>
}

/** Kinds that are kept. */
const MOST = 64
/** Processes are looked at so often, and so many at once: a run may have thousands of refusals. */
const MOST_LOOKS = 256
const MOST_AT_ONCE = 8

export class Refusals {
  readonly #guard: Guard | undefined
  readonly #kinds = new Map<string, Kind>()
  #looks = 0
  #running = 0

  constructor(guard: Guard | undefined) {
    this.#guard = guard
  }

  /** Looks at its process at once, if it was refused: it may end soon. */
  see(call: SeenCall): void {
    if (call.errno === undefined || !isExplained(call) || isProbe(call)) return
    const { pid, innerPid, userNamespace, command, need, attachType, name, errno, reached } = call
    const key = JSON.stringify([
      pid,
      innerPid,
      userNamespace,
      command,
      need,
      attachType,
      name,
      errno,
      reached,
    ])
    const known = this.#kinds.get(key)
    // The newest ones last.
    this.#kinds.delete(key)
    this.#kinds.set(key, known ?? { call, times: 0, looked: this.#look(call) })
    const kind = this.#kinds.get(key)!
    kind.call = call
    kind.times++
    const [oldest] = this.#kinds.keys()
    if (this.#kinds.size > MOST) this.#kinds.delete(oldest!)
  }

  async #look(call: SeenCall): Promise<Looked | undefined> {
    if (call.pid === 0 || this.#looks >= MOST_LOOKS || this.#running >= MOST_AT_ONCE) return undefined
    this.#looks++
    this.#running++
    try {
      return await lookAt(call, this.#guard)
    } catch {
      return undefined
    } finally {
      this.#running--
    }
  }

  /** All that were seen, explained; the newest last. */
  async explained(dateOf: (at: bigint) => Date): Promise<RecordedRefusal[]> {
    if (this.#kinds.size === 0) return []
    const kernel = runningKernel()
    const all: RecordedRefusal[] = []
    for (const { call, times, looked } of this.#kinds.values()) {
      const at = await looked
      const explained = at === undefined ? explainUnseen(call) : explainSeen(kernel, at, call, undefined)
      const { task, pid, uid } = call
      all.push({ at: dateOf(call.at).toISOString(), task, pid, uid, times, explained: documentOf(explained) })
    }
    return all
  }
}

/** No right helps, and feature probes make many of these. */
function isProbe({ errno, command, reached }: SeenCall): boolean {
  return reached && command !== 'prog_load' && (errno === 'EINVAL' || errno === 'E2BIG')
}

const DIRECTORY = '/run/bpftoken'
const FILE = join(DIRECTORY, 'refusals.json')
const MOST_BYTES = 1 << 20

/** False: there is no room, or something else is there. What was kept before is there still, then. */
export function keepRefusals(all: readonly RecordedRefusal[]): boolean {
  if (all.length === 0) return true
  let kept = [...all]
  let text = JSON.stringify(kept)
  while (Buffer.byteLength(text) > MOST_BYTES) {
    kept = kept.slice(Math.ceil(kept.length / 2))
    text = JSON.stringify(kept)
  }
  const temporary = join(DIRECTORY, `.refusals-${process.pid}`)
  try {
    mkdirSync(DIRECTORY, { mode: 0o755, recursive: true })
    const facts = lstatSync(DIRECTORY)
    if (!facts.isDirectory() || notOwnersAlone(facts, 0) !== undefined) return false
    rmSync(temporary, { force: true })
    writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' })
    renameSync(temporary, FILE)
    return true
  } catch {
    rmSync(temporary, { force: true })
    return false
  }
}

/** The newest of a process or user, if they are named. Undefined: there is none, or we may not read it. */
export function lastRefusal({
  pid,
  uid,
}: {
  readonly pid?: number | undefined
  readonly uid?: number | undefined
}): RecordedRefusal | undefined {
  try {
    const facts = lstatSync(FILE)
    if (!facts.isFile() || notOwnersAlone(facts, 0) !== undefined || facts.size > MOST_BYTES) return undefined
    const all = JSON.parse(readFileSync(FILE, 'utf8')) as RecordedRefusal[]
    return all.findLast(
      one => (pid === undefined || one.pid === pid) && (uid === undefined || one.uid === uid),
    )
  } catch {
    return undefined
  }
}
