/** What a command needs from a token and from its caller: rights and capabilities by name. Pure. */
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

/** Those of `needed` that `held` does not give. CAP_SYS_ADMIN stands in for every other one. */
export function missingCapabilities(needed: readonly CapabilityName[], held: bigint): CapabilityName[] {
  const has = (name: CapabilityName): boolean => ((held >> BigInt(CAPABILITIES[name])) & 1n) === 1n
  return has('CAP_SYS_ADMIN') ? [] : needed.filter(name => !has(name))
}
