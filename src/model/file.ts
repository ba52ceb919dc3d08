/** What a number that a caller gives as a descriptor may be. */
import type { Masks } from '../policy/vocabulary.ts'
import type { Inode } from './inode.ts'
import type { UserNamespace } from './task.ts'

/** One bpffs: a superblock. */
export interface BpffsInstance {
  readonly userNamespace: UserNamespace
  readonly masks: Masks
}

/** A BPF token: what its bpffs lent when it was made. */
export interface Token {
  readonly userNamespace: UserNamespace
  readonly masks: Masks
}

/** A loaded program, as far as attaching asks. */
export interface Program {
  /** In the kernel's mount-option word: `xdp`. */
  readonly type: string
  /** Expected attach type, by its number, after the kernel's own corrections. */
  readonly expectedAttach: number
  /** The token that it was loaded with, if one was used. */
  readonly token?: Token
}

export type File =
  /** No such descriptor. */
  | { readonly kind: 'closed' }
  /** Opened with O_PATH: as good as closed for bpf(2). */
  | { readonly kind: 'path' }
  | { readonly kind: 'token'; readonly token: Token }
  /** A directory of a bpffs; `isRoot`: its root. To name a place in it, O_PATH suffices. */
  | {
      readonly kind: 'bpffs'
      readonly instance: BpffsInstance
      readonly isRoot: boolean
      readonly isPath?: true
      /** Absent: everybody may do everything with it. */
      readonly inode?: Inode
    }
  | { readonly kind: 'prog'; readonly prog: Program }
  | { readonly kind: 'map' }
  | { readonly kind: 'btf'; readonly isKernel: boolean }
  | { readonly kind: 'link' }
  /** A directory of cgroup2; to attach to it, O_PATH suffices. */
  | { readonly kind: 'cgroup'; readonly isPath?: true }
  | { readonly kind: 'netns' }
  | { readonly kind: 'sockmap' }
  /** A root directory of another file system. */
  | { readonly kind: 'root' }
  | { readonly kind: 'other' }

export const CLOSED: File = { kind: 'closed' }

/** Whether the kernel finds an open file there: O_PATH counts as closed. */
export function isOpen(file: File): boolean {
  if (file.kind === 'closed' || file.kind === 'path') return false
  return !((file.kind === 'cgroup' || file.kind === 'bpffs') && file.isPath === true)
}

/** For people. */
export function fileText(file: File): string {
  switch (file.kind) {
    case 'closed':
      return 'no open descriptor'
    case 'path':
      return 'a descriptor opened with O_PATH'
    case 'bpffs':
      return file.isRoot ? 'the root of a bpffs' : 'a directory inside of a bpffs'
    case 'prog':
      return `a program of type ${file.prog.type}`
    case 'netns':
      return 'a network namespace'
    case 'other':
      return 'some other file'
    case 'root':
      return 'the root of another file system'
    default:
      return `a ${file.kind}`
  }
}
