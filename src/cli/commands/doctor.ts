/** bpftoken doctor: one line per fact, with a remedy for each that fails. */
import { examine } from '../../delegation/doctor.ts'
import { EXIT } from '../../errors.ts'
import { print, printJson } from '../output.ts'

/** Exit 0: delegation works here. 4: it does not. */
export async function doctor(options: { json?: boolean }): Promise<number> {
  const facts = await examine(fact => {
    if (options.json === true) return
    const mark = fact.ok ? 'ok  ' : fact.required ? 'FAIL' : 'note'
    print(`${mark}  ${fact.name}: ${fact.detail}`)
    if (fact.remedy !== undefined) print(`      -> ${fact.remedy}`)
  })
  const works = facts.every(fact => fact.ok || !fact.required)
  if (options.json === true) printJson({ works, facts })
  else print(works ? 'delegation works on this machine' : 'delegation does not work here, see above')
  return works ? EXIT.ok : EXIT.notSupported
}
