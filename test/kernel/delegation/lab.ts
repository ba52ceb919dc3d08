/** One held sandbox to lend to, commands inside it with chosen capabilities, and errno by name. */
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { Sandbox } from '../../../src/delegation/sandbox.ts'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import { delegatedMounts } from '../../../src/ebpf/bpffs.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import type { Policy } from '../../../src/policy/policy.ts'
import { ANY_MASK, type Masks } from '../../../src/policy/vocabulary.ts'
import { check } from '../../../src/sys/failure.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigString, fsmount } from '../../../src/sys/mount.ts'
import { open } from '../../../src/sys/open.ts'
import { readProc } from '../../../src/sys/process.ts'
import {
  AT_FDCWD,
  CAPABILITIES,
  MNT_DETACH,
  MOVE_MOUNT_F_EMPTY_PATH,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDONLY,
  RESOLVE_IN_ROOT,
} from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { BPF_TOKEN_CREATE, type Command, tokenAttr } from './attributes.ts'
import { anyWithin, bpfWithin, fsopenWithin, openWithin } from './within.ts'

export const vocabulary = runningVocabulary()
export const EVERYTHING: Masks = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
const NOTHING: Masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }

const base = parsePolicy(
  `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: kernel-test }
spec: { rights: { cmds: [map_create] } }
`,
  { source: 'kernel-test', vocabulary },
)

/** A policy with just these masks. */
export function policyWith(masks: Partial<Masks>): Policy {
  return { ...base, rights: { ...base.rights, masks: { ...NOTHING, ...masks } } }
}

/** Where something is delegated in the namespaces of the target. */
export function delegatedPaths(target: Target): string[] {
  return delegatedMounts(readProc(target.process, 'mountinfo')).map(mount => mount.path)
}

export type Cap = 'bpf' | 'net_admin' | 'perfmon' | 'sys_admin' | 'setfcap'

export function capMask(caps: readonly Cap[]): bigint {
  return caps.reduce((mask, cap) => {
    const name = `CAP_${cap.toUpperCase()}` as keyof typeof CAPABILITIES
    return mask | (1n << BigInt(CAPABILITIES[name]))
  }, 0n)
}

/**
 * `ok` or the errno's name. A result that is a descriptor is closed: so only one of ours may be
 * given, never the number that another process has it by.
 */
export function outcome(result: number): string {
  if (result < 0) return errnoName(result)
  if (result > 2) new Fd(result).close()
  return 'ok'
}

/**
 * Any system call of the addon, as root of the target's user and mount namespace: result or -errno.
 */
export function callWithin(target: Target, call: string, ...args: unknown[]): number {
  return anyWithin(target.process.pidfd, call, args)
}

/**
 * The root of what is mounted at `path` in the target, opened for making tokens. The caller closes
 * it.
 */
export function openIn(
  target: Target,
  path: string,
  flags: number = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
): Promise<Fd> {
  return openWithin(target.process.pidfd, target.root, path, flags, RESOLVE_IN_ROOT, HANG_MS)
}

/**
 * A bpffs of the target's user namespace with `masks`, which is mounted nowhere yet. What is in it
 * belongs to `owner`, a user and group of the host. The caller closes it.
 */
function bpffsWithin(target: Target, masks: Partial<Masks>, owner = 0): Fd {
  using fs = fsopenWithin(target.process.pidfd, 'bpf')
  for (const [domain, mask] of Object.entries(masks))
    fsconfigString(fs, `delegate_${domain}`, `0x${mask.toString(16)}`)
  if (owner !== 0) for (const key of ['uid', 'gid']) fsconfigString(fs, key, String(owner))
  fsconfigCreate(fs)
  return fsmount(fs, 0)
}

/**
 * Lends `masks` at /sys/fs/bpf of the target while `body` runs, by the bare system calls: for a
 * test of the kernel's rights that lends thousands of times.
 */
export async function lendingBare<T>(
  target: Target,
  masks: Partial<Masks>,
  owner: number,
  body: () => Promise<T>,
): Promise<T> {
  const must = (call: string, ...args: unknown[]): number =>
    check(call, call, callWithin(target, call, ...args), '/sys/fs/bpf')
  using mount = bpffsWithin(target, masks, owner)
  must('move_mount', mount.number, '', AT_FDCWD, '/sys/fs/bpf', MOVE_MOUNT_F_EMPTY_PATH)
  try {
    return await body()
  } finally {
    must('umount2', '/sys/fs/bpf', MNT_DETACH)
  }
}

/** BPF_TOKEN_CREATE as root of the target: result or -errno. */
export function tokenWithin(target: Target, root: number, caps?: bigint): number {
  return bpfWithin(
    target.process.pidfd,
    BPF_TOKEN_CREATE,
    tokenAttr(root),
    caps === undefined ? {} : { caps },
  )
}

export interface Loan {
  readonly root: Fd
  /** A token made by root of the target with all capabilities. */
  readonly token: Fd
}

export class Lab implements Disposable {
  readonly sandbox: Sandbox
  readonly target: Target

  private constructor(sandbox: Sandbox, target: Target) {
    this.sandbox = sandbox
    this.target = target
  }

  /** A process in namespaces of its own, held before it runs anything. */
  static async open(how: { uid?: number; network?: 'own' | 'host' } = {}): Promise<Lab> {
    const uid = how.uid ?? 65534
    const sandbox = await Sandbox.start({
      command: ['true'],
      uid,
      gid: uid,
      network: how.network ?? 'own',
      capabilities: [],
    })
    return new Lab(sandbox, openTarget(sandbox.pid))
  }

  /** Lends `masks`, makes a token with them, runs `body`, and takes the loan back. */
  async lending<T>(masks: Partial<Masks>, body: (loan: Loan) => T | Promise<T>, path?: string): Promise<T> {
    const options = path === undefined ? {} : { path }
    await delegate(policyWith(masks), this.target, vocabulary, options)
    try {
      using root = await openIn(this.target, path ?? '/sys/fs/bpf')
      using token = new Fd(tokenWithin(this.target, root.number))
      return await body({ root, token })
    } finally {
      await undelegate(this.target, vocabulary, options)
    }
  }

  /**
   * A token with `masks`, made by root of the target on a bpffs that is mounted nowhere: the
   * kernel's rights alone, for a third of the time that `lending` takes. The caller closes it.
   */
  token(masks: Partial<Masks>): Fd {
    using mount = bpffsWithin(this.target, masks)
    using root = open('.', O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, mount)
    return new Fd(tokenWithin(this.target, root.number))
  }

  /**
   * One bpf(2) command as root of the target with `caps` (default: all): `ok` or the errno's name.
   */
  run({ cmd, attr, refs }: Command, caps?: readonly Cap[]): string {
    const limits = caps === undefined ? {} : { caps: capMask(caps) }
    return outcome(bpfWithin(this.target.process.pidfd, cmd, attr, { ...limits, refs }))
  }

  [Symbol.dispose](): void {
    this.target[Symbol.dispose]()
    this.sandbox[Symbol.dispose]()
  }
}
