/**
 * The kernel model against the kernel that runs here, by random cases: `make differential`.
 *
 *   CASES=1000000 SEED=1 tsx test/kernel/model/differential.ts
 *
 * Needs root. Ends with `differential: N cases, 0 differences`; a difference is printed as its
 * smallest case, with what both sides said.
 */
import { agree } from './agree.ts'

async function main(): Promise<void> {
  const cases = Number(process.env['CASES'] ?? 1_000_000)
  const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
  if (!(Number.isSafeInteger(cases) && cases > 0 && Number.isSafeInteger(seed)))
    throw new Error('CASES and SEED are numbers')
  console.log(`differential: ${cases} cases, SEED=${seed}`)
  const started = Date.now()
  const { differences, counts } = await agree(cases, seed, (done, found) => {
    const seconds = (Date.now() - started) / 1000
    const speed = `${seconds.toFixed(0)} s, ${(done / seconds).toFixed(0)} per second`
    console.log(`  ${done} cases, ${found} differences, ${speed}`)
  })
  for (const text of differences) console.log(`\n${text}`)
  for (const [what, count] of [...counts].sort()) console.log(`  ${what.padEnd(34)}${count}`)
  console.log(`differential: ${cases} cases, ${differences.length} differences`)
  process.exitCode = differences.length === 0 ? 0 : 1
}

void main()
