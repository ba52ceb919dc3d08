/** What the running kernel says of a process and of the machine, as far as bpf(2) asks for it. */
import { readFileSync } from 'node:fs'
import { type BpffsMount, delegatedMounts } from '../ebpf/bpffs.ts'
import { MODEL_CAPABILITIES, type ModelCapability } from '../model/task.ts'
import { LOOK_MS, namespaceInTime } from '../sys/in-time.ts'
import { ownerUid } from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import { procFields } from '../sys/proc-file.ts'
import { openProcess, type ProcessHandle, readProc, stillAlive } from '../sys/process.ts'
import { INITIAL_USER_NAMESPACE } from '../sys/self.ts'
import { CAPABILITIES, type CapabilityName } from '../uapi/constants.ts'

export interface Situation {
  readonly pid: number
  /** `user:[4026531837]` */
  readonly userNamespace: string
  readonly isInitial: boolean
  /** Of the user namespace; a user of the host. */
  readonly ownerUid: number
  /** Effective, of the host. */
  readonly uid: number
  /** Effective, in its own user namespace; of those that bpf(2) asks for. */
  readonly capabilities: readonly ModelCapability[]
  /** Whether a seccomp filter is on. What it says is not known. */
  readonly filtered: boolean
  readonly noNewPrivileges: boolean
  /** bpffs with a delegation that its mount namespace shows, of which a token can be made. */
  readonly mounts: readonly BpffsMount[]
  readonly unprivilegedBpfDisabled: 0 | 1 | 2
  /** Security modules that are on, in their order; empty where it is not told. */
  readonly modules: readonly string[]
}

/** The same by its number. NotFoundError: there is none. */
export async function situationOfPid(pid: number): Promise<Situation> {
  using process = openProcess(pid)
  return await situationOf(process)
}

/** NotFoundError: it has exited. TimeoutError: it kept us waiting. */
export async function situationOf(process: ProcessHandle): Promise<Situation> {
  using userNamespace = await namespaceInTime(process, 'user', LOOK_MS)
  const name = `user:[${inodeOf(userNamespace)}]`
  const status = procFields(readProc(process, 'status'))
  const effective = BigInt(`0x${status.get('CapEff') ?? '0'}`)
  const situation = {
    pid: process.pid,
    userNamespace: name,
    isInitial: name === INITIAL_USER_NAMESPACE,
    ownerUid: ownerUid(userNamespace),
    uid: Number(status.get('Uid')?.split('\t')[1] ?? 0),
    capabilities: MODEL_CAPABILITIES.filter(one => {
      const bit = CAPABILITIES[`CAP_${one.toUpperCase()}` as CapabilityName]
      return ((effective >> BigInt(bit)) & 1n) === 1n
    }),
    filtered: status.get('Seccomp') === '2',
    noNewPrivileges: status.get('NoNewPrivs') === '1',
    mounts: delegatedMounts(readProc(process, 'mountinfo')),
    unprivilegedBpfDisabled: sysctl(),
    modules: modules(),
  }
  stillAlive(process)
  return situation
}

function sysctl(): 0 | 1 | 2 {
  const value = textOf('/proc/sys/kernel/unprivileged_bpf_disabled')
  // Fail closed: an unknown value is the strict one.
  return value === '0' ? 0 : value === '1' ? 1 : 2
}

function modules(): string[] {
  return (textOf('/sys/kernel/security/lsm') ?? '').split(',').filter(Boolean)
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1').trim()
  } catch {
    return undefined
  }
}
