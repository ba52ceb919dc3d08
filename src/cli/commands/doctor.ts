/** bpftoken doctor: one line per fact, with a remedy for each that fails. */
import { EXIT } from '../../errors.ts'
import { examine, type Fact } from '../../lending/doctor.ts'
import { remedyOf } from '../hints.ts'
import { installedGuard } from '../installed-guard.ts'
import { print, printJson } from '../output.ts'

/** Exit 0: delegation works here. 4: it does not. 3: that takes root to find out. */
export async function doctor({ json = false }: { json?: boolean }): Promise<number> {
  using guard = process.geteuid?.() === 0 ? await installedGuard() : undefined
  const facts: Fact[] = []
  const tell = (found: Fact): void => {
    const remedy = remedyOf(found)
    facts.push(remedy === undefined ? found : { ...found, remedy })
    if (json) return
    const mark = found.ok ? 'ok  ' : found.required ? 'FAIL' : 'note'
    print(`${mark}  ${found.name}: ${found.detail}`)
    if (remedy !== undefined) print(`      -> ${remedy}`)
  }
  await examine(tell, { guard })
  const works = facts.every(fact => fact.ok || !fact.required)
  if (json) printJson({ works, facts })
  else print(works ? 'delegation works on this machine' : 'delegation does not work here, see above')
  if (works) return EXIT.ok
  // If nothing can be proven for want of rights, the status is denied, and not unsupported.
  return process.geteuid?.() === 0 ? EXIT.notSupported : EXIT.denied
}
