/**
 * A delegation as a list of actions: data that says what to do, not how. Pure.
 *
 * `execute.ts` hands it to the executor; a trial run shows the list. Two directions: the context
 * is opened for the target by a child of the executor (`openContext`), or the workload opened it
 * and lends us its descriptor (`takeContext`), and then mounts by itself.
 */
import { hexMask } from '../policy/mask-text.ts'
import { MASK_DOMAINS, type Masks } from '../policy/vocabulary.ts'

export type Action =
  /** The root of a container that is being made: all paths that follow are below it. */
  | { readonly do: 'enterRoot'; readonly path: string }
  /** What is missing of the directory is made, and stays. */
  | { readonly do: 'makeDirectory'; readonly path: string }
  | { readonly do: 'openDirectory'; readonly path: string }
  | { readonly do: 'openContext'; readonly type: 'bpf' }
  /**
   * There is no delegation at the directory, not even under another mount, and what is mounted
   * there is reached.
   */
  | { readonly do: 'refuseOccupied'; readonly path: string }
  | { readonly do: 'takeContext'; readonly fd: number }
  /**
   * The context is a new one of bpffs; with ids, it belongs to a user namespace where `mapped` is
   * and `unmapped` is not.
   */
  | {
      readonly do: 'proveContext'
      readonly mapped?: number | undefined
      readonly unmapped?: number | undefined
    }
  | { readonly do: 'setOption'; readonly key: string; readonly value: string }
  /**
   * For the guard: this context may be delegated. One of another file system does not take the
   * mark, which is proven next.
   */
  | { readonly do: 'markDelegatable' }
  | { readonly do: 'createSuperblock' }
  | { readonly do: 'makeMount'; readonly attributes: readonly MountAttribute[] }
  /** The target lives, and is in the namespaces that were looked at. */
  | { readonly do: 'refuseMoved' }
  | { readonly do: 'attachMount'; readonly path: string }
  /** The path, opened again in the target, leads to the new mount; what that is, is told. */
  | { readonly do: 'reachMount'; readonly path: string }
  /** Whoever lends looks once more at whom it lends to, before anything can be reached. */
  | { readonly do: 'confirm' }
  /** Waits until it is told to go on: for tests. */
  | { readonly do: 'pause' }

export type MountAttribute = 'nosuid' | 'nodev' | 'noexec'

export { DEFAULT_BPFFS as DEFAULT_PATH } from '../uapi/kernel-paths.ts'

export interface Wish {
  readonly masks: Masks
  /** Ids, in our own user namespace, that the root directory shall belong to. */
  readonly rootUid: number | undefined
  readonly rootGid: number | undefined
  /** Under which name the guard knows the rights; undefined: there is no guard. */
  readonly ability?: string | undefined
}

/**
 * uid, gid and mode decide who may open the root directory (all, to make tokens: the kernel then
 * asks for CAP_BPF) and who may pin in it (the workload's root). Masks are numbers, computed from
 * the running kernel's BTF: immune to the length limit and the grammar's traps.
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

/**
 * We do all of it and the target finds it mounted at `path`. `rootfs`: the target is a container
 * that is being made, and that directory will be its root.
 */
export function planDelegation(wish: Wish, path: string, rootfs?: string): Action[] {
  const below: Action[] =
    rootfs === undefined
      ? []
      : [
          { do: 'enterRoot', path: rootfs },
          { do: 'makeDirectory', path },
        ]
  return [
    ...below,
    { do: 'openDirectory', path },
    { do: 'openContext', type: 'bpf' },
    { do: 'refuseOccupied', path },
    ...mark(wish),
    ...options(wish),
    { do: 'createSuperblock' },
    { do: 'makeMount', attributes: ['nosuid', 'nodev', 'noexec'] },
    { do: 'confirm' },
    { do: 'refuseMoved' },
    { do: 'attachMount', path },
    { do: 'reachMount', path },
    { do: 'refuseMoved' },
  ]
}

/** The guard lets no right be set before. */
function mark(wish: Wish): Action[] {
  return wish.ability === undefined ? [] : [{ do: 'markDelegatable' }]
}

/**
 * The workload opened the context as its descriptor `fd`; it does fsmount(2) and move_mount(2)
 * itself. Ids of which the first is mapped in its user namespace, and the second is not, tell the
 * context from those of most other namespaces; another one with the same root passes, and only the
 * guard can tell these two apart.
 */
export function planTakenContext(wish: Wish, fd: number, unmapped?: number): Action[] {
  return [
    { do: 'takeContext', fd },
    ...mark(wish),
    { do: 'proveContext', mapped: wish.rootUid, unmapped },
    ...options(wish),
    { do: 'confirm' },
    { do: 'refuseMoved' },
    { do: 'createSuperblock' },
    { do: 'refuseMoved' },
  ]
}

/** One line per action, for who wants to see them first. */
export function describeAction(action: Action): string {
  switch (action.do) {
    case 'enterRoot':
      return `in the target: openat2 ${action.path}, its root to be`
    case 'makeDirectory':
      return `in the target: mkdir ${action.path}, what is missing of it`
    case 'openDirectory':
      return `in the target: openat2 ${action.path}, no symbolic link out of its root`
    case 'openContext':
      return `in the target: fsopen ${action.type}`
    case 'takeContext':
      return `pidfd_getfd descriptor ${action.fd} of the target`
    case 'proveContext':
      return 'make sure that it is a new bpffs context'
    case 'refuseOccupied':
      return `make sure that there is no delegation at ${action.path}`
    case 'refuseMoved':
      return 'make sure that the target is where it was'
    case 'confirm':
      return 'make sure that the target is who was let through'
    case 'reachMount':
      return `in the target: openat2 ${action.path}, which must lead to the new mount`
    case 'pause':
      return 'wait'
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
