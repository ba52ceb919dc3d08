/** BPF_TOKEN_CREATE, and how the other commands take a token. */
import { hasBit, MASK_DOMAINS } from '../policy/vocabulary.ts'
import { type AttrBytes, callFails, fieldOf, lsmText, tailFails } from './bpf-call.ts'
import { type BpffsInstance, type File, fileText, isOpen, type Token } from './file.ts'
import type { Judge, Rule } from './judge.ts'
import type { Machine } from './machine.ts'
import {
  bpfNsCapable,
  capabilitiesText,
  capabilityText,
  INITIAL,
  type ModelCapability,
  nsCapable,
  type Task,
} from './task.ts'

export interface TokenCreate {
  readonly op: 'token_create'
  readonly bpffs: File
  readonly flags?: number
  /** What descriptor 0 is, which attributes that are too short name. */
  readonly standardInput?: File
  readonly attr?: AttrBytes
}

export const TOKEN_RULES = {
  flags: {
    name: 'TOKEN_CREATE: flags',
    needs: 'flags 0',
    source: 'token_create',
    errno: 'EINVAL',
  },
  file: {
    name: 'TOKEN_CREATE: descriptor',
    needs: 'an open descriptor that was not opened with O_PATH',
    source: 'bpf_token_create',
    errno: 'EBADF',
  },
  root: {
    name: 'TOKEN_CREATE: root directory',
    needs: 'the root directory of a file system',
    source: 'bpf_token_create',
    errno: 'EINVAL',
  },
  bpffs: {
    name: 'TOKEN_CREATE: bpffs',
    needs: 'a bpffs',
    source: 'bpf_token_create',
    errno: 'EINVAL',
  },
  namespace: {
    name: 'TOKEN_CREATE: user namespace of the bpffs',
    needs: 'a task in the user namespace of the bpffs',
    source: 'bpf_token_create',
    errno: 'EPERM',
  },
  capable: {
    name: 'TOKEN_CREATE: CAP_BPF',
    needs: 'CAP_BPF itself in that user namespace; CAP_SYS_ADMIN does not stand in for it here',
    source: 'bpf_token_create',
    errno: 'EPERM',
  },
  initial: {
    name: 'TOKEN_CREATE: initial user namespace',
    needs: 'a user namespace that is not the initial one',
    source: 'bpf_token_create',
    errno: 'EOPNOTSUPP',
  },
  delegated: {
    name: 'TOKEN_CREATE: something delegated',
    needs: 'a bpffs with some delegate_* option',
    source: 'bpf_token_create',
    errno: 'ENOENT',
  },
  lsm: {
    name: 'LSM bpf_token_create',
    needs: 'security modules that allow the token',
    source: 'security_bpf_token_create',
  },
  tokenFile: {
    name: 'token: descriptor',
    needs: 'an open descriptor as token',
    source: 'bpf_token_get_from_fd',
    errno: 'EBADF',
  },
  tokenKind: {
    name: 'token: is a token',
    needs: 'a descriptor of a BPF token',
    source: 'bpf_token_get_from_fd',
    errno: 'EINVAL',
  },
  command: {
    name: 'token: allows the command',
    needs: 'a token that allows the command; without, it is ignored',
    source: 'bpf_token_allow_cmd',
  },
  lsmCommand: {
    name: 'LSM bpf_token_cmd',
    needs: 'security modules that let the token be used; without, it is ignored',
    source: 'security_bpf_token_cmd',
  },
  lsmCapable: {
    name: 'LSM bpf_token_capable',
    needs: 'security modules that let the token stand in for the capability',
    source: 'security_bpf_token_capable',
  },
} as const satisfies Record<string, Rule>

const FD_OFFSET = 4

export function tokenCreate(judge: Judge, machine: Machine, task: Task, call: TokenCreate): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, 'token_create', attr)) return
  if (tailFails(judge, machine, 'token_create', attr)) return
  const flags = fieldOf(attr, 0, call.flags ?? 0)
  if (judge.fails(TOKEN_RULES.flags, flags === 0, `flags ${flags}`)) return
  const cut = attr.size !== undefined && attr.size < FD_OFFSET + 4
  const file = cut ? (call.standardInput ?? { kind: 'other' }) : call.bpffs
  const open = isOpen(file)
  if (judge.fails(TOKEN_RULES.file, open, fileText(file))) return
  const isRoot = file.kind === 'root' || (file.kind === 'bpffs' && file.isRoot)
  if (judge.fails(TOKEN_RULES.root, isRoot, fileText(file))) return
  const isBpffs = file.kind === 'bpffs'
  if (judge.fails(TOKEN_RULES.bpffs, isBpffs, fileText(file)) || !isBpffs) return
  createOn(judge, machine, task, file.instance)
}

function createOn(judge: Judge, machine: Machine, task: Task, instance: BpffsInstance): void {
  const ns = instance.userNamespace
  const same = task.userNamespace === ns
  const where = `task in ${task.userNamespace.name}, bpffs of ${ns.name}`
  if (judge.fails(TOKEN_RULES.namespace, same, where)) return
  const may = nsCapable(judge, task, ns, 'bpf')
  if (judge.fails(TOKEN_RULES.capable, may, () => capabilitiesText(task, ns))) return
  const isInitial = task.userNamespace === INITIAL
  if (judge.fails(TOKEN_RULES.initial, !isInitial, `user namespace ${task.userNamespace.name}`)) return
  const some = MASK_DOMAINS.some(domain => instance.masks[domain] !== 0n)
  if (judge.fails(TOKEN_RULES.delegated, some, some ? 'some' : 'nothing delegated')) return
  const refusal = machine.lsm?.bpf_token_create
  judge.fails(TOKEN_RULES.lsm, refusal === undefined, lsmText(refusal), undefined, refusal)
}

/** How a command names a token. */
export interface TokenChoice {
  /** BPF_F_TOKEN_FD is set. Without it the descriptor is not looked at. */
  readonly flag: boolean
  readonly file: File
}

/** What became of the token that a call names: the one that is used, or none; `refused` ends the call. */
export type Resolved = { readonly refused: true } | { readonly refused: false; readonly token?: Token }

const NONE: Resolved = { refused: false }
const REFUSED: Resolved = { refused: true }

/**
 * The token under which a command is judged. One that does not cover the command is ignored without
 * a word; then the initial namespace counts.
 */
export function resolveToken(
  judge: Judge,
  machine: Machine,
  choice: TokenChoice | undefined,
  command: 'map_create' | 'prog_load' | 'btf_load' | 'btf_get_fd_by_id',
  covers: (token: Token) => boolean,
): Resolved {
  if (choice === undefined || !choice.flag) return NONE
  const { file } = choice
  const open = isOpen(file)
  if (judge.fails(TOKEN_RULES.tokenFile, open, fileText(file))) return REFUSED
  const isToken = file.kind === 'token'
  if (judge.fails(TOKEN_RULES.tokenKind, isToken, fileText(file)) || !isToken) return REFUSED
  const { token } = file
  const bit = machine.kernel.vocabulary.cmds.bitOfName.get(command)!
  const allowed = hasBit(token.masks.cmds, bit)
  if (!judge.holds(TOKEN_RULES.command, allowed, allowed ? command : `no ${command}`)) return NONE
  const refusal = machine.lsm?.bpf_token_cmd
  if (!judge.holds(TOKEN_RULES.lsmCommand, refusal === undefined, lsmText(refusal))) return NONE
  return covers(token) ? { refused: false, token } : NONE
}

/** bpf_token_capable(): the capability in the token's user namespace, or without a token in the initial one. */
export function tokenCapable(
  judge: Judge,
  machine: Machine,
  task: Task,
  token: Token | undefined,
  capability: ModelCapability,
): boolean {
  if (!bpfNsCapable(judge, task, token?.userNamespace ?? INITIAL, capability)) return false
  if (token === undefined) return true
  const lent = machine.lsm?.bpf_token_capable === undefined || machine.lsmLends?.has(capability) === true
  return judge.part(TOKEN_RULES.lsmCapable, lent)
}

/** Where a capability is asked for, for people. */
export function neededText(token: Token | undefined, capability: ModelCapability): string {
  const name = capabilityText(capability)
  return token === undefined
    ? `${name} in the initial user namespace, since no token is used`
    : `${name} in the token's user namespace ${token.userNamespace.name}`
}

/** What there is of it. */
export function foundText(machine: Machine, task: Task, token: Token | undefined): string {
  const has = capabilitiesText(task, token?.userNamespace ?? INITIAL)
  const refusal = token === undefined ? undefined : machine.lsm?.bpf_token_capable
  return refusal === undefined ? has : `${has}, but a security module refuses`
}
