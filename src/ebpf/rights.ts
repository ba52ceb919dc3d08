/**
 * What a command needs from a token, and why one was refused: the missing right or capability by
 * name.
 *
 * The kernel answers EPERM for both and ignores silently a token that does not cover the request,
 * so the reason is computed here from the token's masks and the caller's capabilities.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { SyscallError } from '../errors.ts'
import { procFields } from '../sys/proc-file.ts'
import { NET_ADMIN_MAPS, NET_ADMIN_PROGS, PERFMON_PROGS, type TOKEN_COMMANDS } from '../uapi/bpf-needs.ts'
import { CAPABILITIES, type CapabilityName } from '../uapi/constants.ts'
import {
  ATTACH_TYPES,
  type AttachType,
  CMDS,
  MAP_TYPES,
  type MapType,
  PROG_TYPES,
  type ProgType,
} from './type-names.ts'

/** The four masks of a token; bit n stands for enumerator n. */
export interface TokenRights {
  cmds: bigint
  maps: bigint
  progs: bigint
  attachs: bigint
}

/** The only commands for which the kernel asks a token. */
export type TokenCmd = (typeof TOKEN_COMMANDS)[number]

/** What one command asks of a token. */
export interface Need {
  cmd: TokenCmd
  mapType?: MapType | number
  progType?: ProgType | number
  /** For a program: without one, it counts as number 0, `cgroup_inet_ingress`. */
  attachType?: AttachType | number
}

export interface MissingRight {
  domain: keyof TokenRights
  word: string
}

/** The attach type that the kernel checks: 0 stands for another one in two program types. */
function checkedAttachType(progType: number, attachType: number): number {
  if (attachType !== 0) return attachType
  if (progType === PROG_TYPES.number('cgroup_sock')) return ATTACH_TYPES.number('cgroup_inet_sock_create')
  if (progType === PROG_TYPES.number('sk_reuseport')) return ATTACH_TYPES.number('sk_reuseport_select')
  return 0
}

/** One bit of a mask. */
export interface Right extends MissingRight {
  bit: number
}

/** The rights that a token has to lend for the command, command first. */
export function neededRights(need: Need): Right[] {
  const needed: Right[] = [{ domain: 'cmds', bit: CMDS.number(need.cmd), word: need.cmd }]
  if (need.mapType !== undefined) {
    const bit = MAP_TYPES.number(need.mapType)
    needed.push({ domain: 'maps', bit, word: MAP_TYPES.word(bit) })
  }
  if (need.progType !== undefined) {
    const bit = PROG_TYPES.number(need.progType)
    needed.push({ domain: 'progs', bit, word: PROG_TYPES.word(bit) })
    const attach = checkedAttachType(bit, ATTACH_TYPES.number(need.attachType ?? 0))
    needed.push({ domain: 'attachs', bit: attach, word: ATTACH_TYPES.word(attach) })
  }
  return needed
}

/** Which rights a token with these masks lacks for the command; empty when it covers it. */
export function missingIn(rights: TokenRights, need: Need): MissingRight[] {
  return neededRights(need)
    .filter(({ domain, bit }) => ((rights[domain] >> BigInt(bit)) & 1n) === 0n)
    .map(({ domain, word }) => ({ domain, word }))
}

function isIn(words: readonly string[], word: string): boolean {
  return words.includes(word)
}

/**
 * The capabilities that the command wants from the caller, in the token's user namespace or,
 * without a token, in the initial one.
 */
export function neededCapabilities(need: Need): CapabilityName[] {
  if (need.cmd === 'btf_get_fd_by_id') return ['CAP_SYS_ADMIN']
  const needed: CapabilityName[] = ['CAP_BPF']
  const map = need.mapType === undefined ? '' : MAP_TYPES.word(need.mapType)
  const prog = need.progType === undefined ? '' : PROG_TYPES.word(need.progType)
  if (isIn(NET_ADMIN_MAPS, map) || isIn(NET_ADMIN_PROGS, prog)) needed.push('CAP_NET_ADMIN')
  if (isIn(PERFMON_PROGS, prog)) needed.push('CAP_PERFMON')
  return needed
}

/** Our effective capabilities, in our own user namespace; bit n is capability n. */
export function effectiveCapabilities(): bigint {
  const held = procFields(readFileSync('/proc/self/status', 'utf8')).get('CapEff') ?? ''
  return /^[0-9a-f]{1,16}$/.test(held) ? BigInt(`0x${held}`) : 0n
}

/** Those of `needed` that `held` does not give. CAP_SYS_ADMIN stands in for every other one. */
export function missingCapabilities(needed: readonly CapabilityName[], held: bigint): CapabilityName[] {
  const has = (name: CapabilityName): boolean => ((held >> BigInt(CAPABILITIES[name])) & 1n) === 1n
  return has('CAP_SYS_ADMIN') ? [] : needed.filter(name => !has(name))
}

/** PROC_USER_INIT_INO, include/linux/proc_ns.h. */
export const INITIAL_USER_NAMESPACE = 'user:[4026531837]'

function inInitialUserNamespace(): boolean {
  return readlinkSync('/proc/self/ns/user') === INITIAL_USER_NAMESPACE
}

const VOCABULARY = { cmds: CMDS, maps: MAP_TYPES, progs: PROG_TYPES, attachs: ATTACH_TYPES }

/** `xdp, socket_filter`, or `nothing`. */
function wordsOf(domain: keyof TokenRights, mask: bigint): string {
  const names = VOCABULARY[domain]
  const words = names.words().filter(word => ((mask >> BigInt(names.number(word as never))) & 1n) === 1n)
  if (words.length === names.words().length) return 'any'
  return words.length === 0 ? 'nothing' : words.join(', ')
}

interface TokenFacts {
  /** The bpffs it is of, where known. */
  path: string | undefined
  info(): TokenRights
}

/**
 * The next step after an EPERM, or undefined when nothing better is known than the errno's own
 * hint.
 */
function reasonFor(need: Need, token: TokenFacts | undefined): string | undefined {
  const wanting = missingCapabilities(neededCapabilities(need), effectiveCapabilities())
  if (token === undefined) {
    if (!inInitialUserNamespace())
      return 'No BPF token is in use: have rights delegated at /sys/fs/bpf, or name the bpffs in LIBBPF_BPF_TOKEN_PATH'
    return wanting.length === 0 ? undefined : `Missing capability: ${wanting.join(', ')}, or a BPF token`
  }
  const rights = token.info()
  const missing = missingIn(rights, need)
  if (missing.length > 0) {
    const named = missing.map(({ domain, word }) => `${domain} ${word}`).join(', ')
    const { domain } = missing[0]!
    const of = token.path === undefined ? 'the token' : `the token of ${token.path}`
    const plural = missing.length > 1 ? 'rights' : 'right'
    const lends = missing.length > 1 ? '' : ` (${of} lends ${wordsOf(domain, rights[domain])})`
    return `Missing ${plural}: ${named}${lends}`
  }
  if (wanting.length > 0)
    return `Missing capability: ${wanting.join(', ')} in the user namespace of the token, which lends the rights`
  return 'The token lends the rights: use it in the user namespace it was made in; a security module may refuse too'
}

/**
 * The same failure with its object and, for EPERM, with the reason as hint. Other errors pass
 * unchanged.
 */
export function explain(error: unknown, object: string, need: Need, token: TokenFacts | undefined): unknown {
  if (!(error instanceof SyscallError)) return error
  const reason = error.errnoName === 'EPERM' ? reasonFor(need, token) : undefined
  const { call, op, errno, errnoName } = error
  return new SyscallError(
    { call, op, errno, errnoName, object },
    { context: { object }, hint: reason ?? error.hint },
  )
}
