/**
 * A delegation as a list of actions: data that says what to do, not how. Pure.
 *
 * `execute.ts` is the only interpreter; `--dry-run` prints the list. Two directions: the context is
 * opened for the target by our child (`openContext`), or the workload opened it and lends us its
 * descriptor (`takeContext`), and then mounts by itself.
 */
import { hexMask } from '../policy/mask-text.ts'
import { MASK_DOMAINS, type Masks } from '../policy/vocabulary.ts'

export type Action =
  | { readonly do: 'openDirectory'; readonly path: string }
  | { readonly do: 'openContext'; readonly type: 'bpf' }
  /** With `mark`, as `markDelegatable` before anything else is done to it. */
  | { readonly do: 'takeContext'; readonly fd: number; readonly mark?: boolean }
  | { readonly do: 'setOption'; readonly key: string; readonly value: string }
  /** For the guard: this context may be delegated. */
  | { readonly do: 'markDelegatable' }
  | { readonly do: 'createSuperblock' }
  | { readonly do: 'makeMount'; readonly attributes: readonly MountAttribute[] }
  | { readonly do: 'attachMount'; readonly path: string }

export type MountAttribute = 'nosuid' | 'nodev' | 'noexec'

/** Where libbpf and every token-aware loader look without being told. */
export const DEFAULT_PATH = '/sys/fs/bpf'

export interface Wish {
  readonly masks: Masks
  /** Ids, in our own user namespace, that the root directory shall belong to. */
  readonly rootUid: number | undefined
  readonly rootGid: number | undefined
  /** Under which name the guard knows the rights; undefined: there is no guard. */
  readonly ability?: string | undefined
}

/**
 * uid, gid and mode decide who may open the root directory (all, to make tokens: the kernel then asks
 * for CAP_BPF) and who may pin in it (the workload's root). Masks are numbers, computed from the
 * running kernel's BTF: immune to the length limit and the grammar's traps.
 */
function options(wish: Wish): Action[] {
  const set = (key: string, value: string): Action => ({ do: 'setOption', key, value })
  return [
    ...(wish.ability === undefined ? [] : [set('abilities', wish.ability)]),
    ...(wish.rootUid === undefined ? [] : [set('uid', String(wish.rootUid))]),
    ...(wish.rootGid === undefined ? [] : [set('gid', String(wish.rootGid))]),
    set('mode', '0755'),
    ...MASK_DOMAINS.filter(domain => wish.masks[domain] !== 0n).map(domain =>
      set(`delegate_${domain}`, hexMask(wish.masks[domain])),
    ),
  ]
}

/** We do all of it and the target finds it mounted at `path`. */
export function planDelegation(wish: Wish, path: string): Action[] {
  return [
    { do: 'openDirectory', path },
    { do: 'openContext', type: 'bpf' },
    ...(wish.ability === undefined ? [] : [{ do: 'markDelegatable' } as const]),
    ...options(wish),
    { do: 'createSuperblock' },
    { do: 'makeMount', attributes: ['nosuid', 'nodev', 'noexec'] },
    { do: 'attachMount', path },
  ]
}

/** The workload opened the context as its descriptor `fd`; it does fsmount(2) and move_mount(2) itself. */
export function planTakenContext(wish: Wish, fd: number): Action[] {
  const take = { do: 'takeContext', fd, ...(wish.ability === undefined ? {} : { mark: true }) } as const
  return [take, ...options(wish), { do: 'createSuperblock' }]
}

/** One line per action, for `--dry-run`. */
export function describeAction(action: Action): string {
  switch (action.do) {
    case 'openDirectory':
      return `in the target: openat2 ${action.path}, no symbolic link out of its root`
    case 'openContext':
      return `in the target: fsopen ${action.type}`
    case 'takeContext':
      return `pidfd_getfd descriptor ${action.fd} of the target, which must be a bpffs context`
    case 'setOption':
      return `fsconfig ${action.key}=${action.value}`
    case 'markDelegatable':
      return 'fsconfig delegate: tell the guard that this context may be delegated'
    case 'createSuperblock':
      return 'fsconfig FSCONFIG_CMD_CREATE'
    case 'makeMount':
      return `fsmount ${action.attributes.join(',')}`
    case 'attachMount':
      return `in the target: move_mount to ${action.path}`
  }
}
