/**
 * The kernel model against the kernels of virtual machines, by random cases: `make differential-vm`.
 *
 *   CASES=50000 SEED=1 KERNEL=6.12 SYSCTL=0 tsx test/kernel/model/differential-vm.ts
 *
 * CASES are those of each machine. Ends with `differential: N cases, 0 differences`, of all together.
 */
import { chosenVms, inVm, vmText } from './vms.ts'

const LAST = /^differential: (\d+) cases, (\d+) differences$/

async function main(): Promise<void> {
  const { CASES = '50000', SEED } = process.env
  let [cases, differences] = [0, 0]
  const without: string[] = []
  for (const vm of chosenVms()) {
    console.log(`\n== ${vmText(vm)} ==`)
    const { lines } = await inVm(vm, { file: 'differential.ts', environment: { CASES, SEED } })
    const last = lines.map(line => LAST.exec(line)).findLast(match => match !== null)
    if (last == null) without.push(vmText(vm))
    cases += Number(last?.[1] ?? 0)
    differences += Number(last?.[2] ?? 0)
  }
  for (const vm of without) console.log(`did not come to an end: ${vm}`)
  console.log(`differential: ${cases} cases, ${differences} differences`)
  process.exitCode = differences === 0 && without.length === 0 ? 0 : 1
}

void main()
