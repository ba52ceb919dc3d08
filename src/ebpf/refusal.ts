/**
 * Why a command was refused: the missing right or capability by name.
 *
 * The kernel answers EPERM for both and ignores silently a token that does not cover the request,
 * so the reason is computed here from the token's masks and our own capabilities.
 */
import { SyscallError } from '../errors.ts'
import { effectiveCapabilities, inInitialUserNamespace } from '../sys/self.ts'
import { missingCapabilities, missingIn, type Need, neededCapabilities, type TokenRights } from './rights.ts'
import { ATTACH_TYPES, CMDS, MAP_TYPES, PROG_TYPES } from './type-names.ts'

/** For the public door, and for commands: they do not reach below this layer. */
export { effectiveCapabilities }

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

interface Reason {
  /** The next step; undefined: nothing better is known than the errno's own hint. */
  readonly hint?: string
  /** What was not there, as data: `maps hash,progs xdp`. */
  readonly missing?: string
  readonly capabilities?: string
}

/** What is behind an EPERM. */
function reasonFor(need: Need, token: TokenFacts | undefined): Reason {
  const wanting = missingCapabilities(neededCapabilities(need), effectiveCapabilities())
  if (token === undefined) {
    if (!inInitialUserNamespace())
      return {
        hint: 'No BPF token is in use: have rights delegated at /sys/fs/bpf, or name the bpffs in LIBBPF_BPF_TOKEN_PATH',
      }
    return wanting.length === 0 ? {} : { hint: `Missing capability: ${wanting.join(', ')}, or a BPF token` }
  }
  const rights = token.info()
  const missing = missingIn(rights, need)
  if (missing.length > 0) {
    const named = missing.map(({ domain, word }) => `${domain} ${word}`).join(', ')
    const { domain } = missing[0]!
    const of = token.path === undefined ? 'the token' : `the token of ${token.path}`
    const plural = missing.length > 1 ? 'rights' : 'right'
    const lends = missing.length > 1 ? '' : ` (${of} lends ${wordsOf(domain, rights[domain])})`
    return {
      hint: `Missing ${plural}: ${named}${lends}`,
      missing: missing.map(one => `${one.domain} ${one.word}`).join(','),
    }
  }
  if (wanting.length > 0)
    return {
      hint: `Missing capability: ${wanting.join(', ')} in the user namespace of the token, which lends the rights`,
      capabilities: wanting.join(','),
    }
  return {
    hint: 'The token lends the rights: use it in the user namespace it was made in; a security module may refuse too',
  }
}

/**
 * The same failure with its object and, for EPERM, with the reason as hint; for EINVAL with `misfit`,
 * where the caller knows what does not fit. Other errors pass unchanged.
 */
export function explain(
  error: unknown,
  object: string,
  need: Need,
  token: TokenFacts | undefined,
  misfit?: string,
): unknown {
  if (!(error instanceof SyscallError)) return error
  const { hint, ...missing } = reasonOf(error.errnoName, need, token, misfit)
  const { call, op, errno, errnoName } = error
  return new SyscallError(
    { call, op, errno, errnoName, object },
    { context: { object, ...missing }, hint: hint ?? error.hint },
  )
}

function reasonOf(
  errnoName: string,
  need: Need,
  token: TokenFacts | undefined,
  misfit: string | undefined,
): Reason {
  if (errnoName === 'EPERM') return reasonFor(need, token)
  return errnoName === 'EINVAL' && misfit !== undefined ? { hint: misfit } : {}
}
