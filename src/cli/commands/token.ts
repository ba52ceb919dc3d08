/** bpftoken token show: inside a workload, what a token made here allows and what backs it. */
import { runningVocabulary } from '../../delegation/vocabulary.ts'
import { effectiveCapabilities } from '../../ebpf/refusal.ts'
import { DEFAULT_BPFFS, findToken, type Token } from '../../ebpf/token.ts'
import { EXIT } from '../../errors.ts'
import { PROGRAM_CLASSES } from '../../policy/kernel-classes.ts'
import { describeMask, hexMask } from '../../policy/mask-text.ts'
import { bitsOf, hasBit, MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { CAPABILITIES } from '../../uapi/constants.ts'
import { columns, note, print, printJson } from '../output.ts'

export function show(options: { path?: string; json?: boolean }): number {
  const named = options.path ?? process.env['LIBBPF_BPF_TOKEN_PATH']
  if (named === '') {
    note('tokens are switched off here: LIBBPF_BPF_TOKEN_PATH is empty')
    return EXIT.failed
  }
  // Where a loader would try quietly, the user who asks is told why it does not work.
  using token = findToken({ path: named ?? DEFAULT_BPFFS }) as Token
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
      masks: Object.fromEntries(MASK_DOMAINS.map(domain => [domain, hexMask(rights[domain])])),
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
