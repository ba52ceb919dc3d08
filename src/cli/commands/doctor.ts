/** bpftoken doctor: one line per fact, with a remedy for each that fails. */

import { EXIT } from '../../errors.ts'
import { Guard } from '../../guard/guard.ts'
import { probeGuard } from '../../guard/install.ts'
import { examine, type Fact } from '../../lending/doctor.ts'
import { print, printJson } from '../output.ts'

/** Exit 0: delegation works here. 4: it does not. 3: that takes root to find out. */
export async function doctor(options: { json?: boolean }): Promise<number> {
  using guard = process.geteuid?.() === 0 ? Guard.openOrNull() : undefined
  const report = (fact: Fact): void => {
    if (options.json === true) return
    const mark = fact.ok ? 'ok  ' : fact.required ? 'FAIL' : 'note'
    print(`${mark}  ${fact.name}: ${fact.detail}`)
    if (fact.remedy !== undefined) print(`      -> ${fact.remedy}`)
  }
  const facts = await examine(report, {
    lend: guard && (policy => guard.lend(policy)),
    guarded: guard !== undefined && probeGuard(),
  })
  const works = facts.every(fact => fact.ok || !fact.required)
  if (options.json === true) printJson({ works, facts })
  else print(works ? 'delegation works on this machine' : 'delegation does not work here, see above')
  if (works) return EXIT.ok
  // To whom nothing can be proven is denied, not unsupported.
  return process.geteuid?.() === 0 ? EXIT.notSupported : EXIT.denied
}
