/** bpftoken token show: inside a workload, what a token made here allows and what backs it. */
import { readFileSync } from 'node:fs'
import { runningVocabulary } from '../../delegation/vocabulary.ts'
import { delegatedMounts } from '../../ebpf/bpffs.ts'
import { effectiveCapabilities } from '../../ebpf/refusal.ts'
import { DEFAULT_BPFFS, Token } from '../../ebpf/token.ts'
import { DeniedError, EXIT, NotFoundError, SyscallError } from '../../errors.ts'
import { PROGRAM_CLASSES } from '../../policy/kernel-classes.ts'
import { describeMask, hexMasks } from '../../policy/mask-text.ts'
import { bitsOf, hasBit, MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { CAPABILITIES } from '../../uapi/constants.ts'
import { columns, print, printJson } from '../output.ts'

interface Place {
  readonly path: string
  /** Why there. */
  readonly because: string
}

/**
 * Looks where loaders look; see findToken. NotFoundError: the environment tells loaders not to
 * look.
 */
function whereToLook(path: string | undefined): Place {
  if (path !== undefined) return { path, because: 'as --path says' }
  const named = process.env[VARIABLE]
  if (named === undefined) return { path: DEFAULT_BPFFS, because: `where loaders look without ${VARIABLE}` }
  if (named !== '') return { path: named, because: `as ${VARIABLE} says` }
  throw new NotFoundError(`Tokens are switched off here: ${VARIABLE} is empty`, {
    hint: `Unset ${VARIABLE}, or name the delegated bpffs with --path`,
  })
}

const VARIABLE = 'LIBBPF_BPF_TOKEN_PATH'

/** What each errno of making a token means; see Token.create. */
const REFUSALS: Readonly<Record<string, string>> = {
  EOPNOTSUPP: 'this process is in the initial user namespace, where there are no tokens',
  ENOTDIR: 'it is no directory',
}

/**
 * The token that can be made there. NotFoundError: nothing is delegated there. DeniedError:
 * something is or may be delegated there, but not to this process.
 */
function tokenAt({ path, because }: Place): Token {
  try {
    return Token.create(path)
  } catch (cause) {
    if (!(cause instanceof SyscallError)) throw cause
    const { errnoName, call } = cause
    const looked = `looked at ${path}, ${because}`
    const context = { path, errno: errnoName }
    if (errnoName === 'EPERM' || errnoName === 'EACCES')
      throw new DeniedError(`No token can be made: ${looked}`, {
        context,
        cause,
        hint: cause.hint ?? NOT_OURS,
      })
    const why = {
      ...REFUSALS,
      ENOENT: call === 'openat2' ? 'it does not exist' : 'the bpffs there delegates nothing',
      EINVAL: 'no bpffs is mounted there',
    }[errnoName]
    if (why === undefined) throw cause
    const elsewhere = delegatedMounts(readFileSync('/proc/self/mountinfo', 'utf8')).map(mount => mount.path)
    throw new NotFoundError(`Nothing is delegated to this process: ${looked}, and ${why}`, {
      context,
      hint:
        elsewhere.length === 0
          ? 'Start it with bpftoken run, or lend to it with bpftoken delegate --pid'
          : `There is a delegation at ${elsewhere.join(', ')}: name it with --path`,
    })
  }
}

const NOT_OURS = 'It takes CAP_BPF in the user namespace that the bpffs was delegated to'

export function show(options: { path?: string; json?: boolean }): number {
  using token = tokenAt(whereToLook(options.path))
  const vocabulary = runningVocabulary()
  const rights = token.info()
  const held = effectiveCapabilities()
  const backing = (['bpf', 'net_admin', 'perfmon', 'sys_admin'] as const).map(name => ({
    name,
    held: hasBit(held, CAPABILITIES[`CAP_${name.toUpperCase()}` as keyof typeof CAPABILITIES]),
  }))
  const unbacked = bitsOf(rights.progs).flatMap(bit => {
    const prog = vocabulary.progs.nameOfBit.get(bit) ?? ''
    const needs = PROGRAM_CLASSES[prog]?.capabilities ?? []
    const lacking = needs.filter(name => !backing.find(cap => cap.name === name)?.held)
    return lacking.length > 0 && !backing[3]!.held ? [{ prog, lacking }] : []
  })
  if (options.json === true) {
    printJson({
      path: token.path,
      masks: hexMasks(rights),
      words: Object.fromEntries(
        MASK_DOMAINS.map(domain => [domain, describeMask(vocabulary, domain, rights[domain])]),
      ),
      capabilities: Object.fromEntries(backing.map(cap => [cap.name, cap.held])),
      unbacked,
    })
    return EXIT.ok
  }
  print(
    ...columns([
      ['token of', token.path ?? '?'],
      ...MASK_DOMAINS.map(domain => [
        domain,
        describeMask(vocabulary, domain, rights[domain]).join(' ') || 'nothing',
      ]),
      ['capabilities', backing.map(cap => `${cap.name} ${cap.held ? 'yes' : 'no'}`).join(', ')],
    ]),
  )
  for (const { prog, lacking } of unbacked)
    print(
      `${prog} is lent, but cannot be loaded: this process lacks ${lacking.join(', ')} in its user namespace`,
    )
  return EXIT.ok
}
