/**
 * The guard's model against the guard that runs here, by random stories. In a VM:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 -- node test/vm/story/main.ts 200 1
 *
 * Arguments: how many stories, and the seed of the first one. Ends with
 * `guard stories: N stories, M steps, 0 differences`.
 */
import { Guard } from '../../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../../src/guard/install.ts'
import { agree } from './agree.ts'

async function main(): Promise<void> {
  const [stories, seed] = [Number(process.argv[2] ?? 200), Number(process.argv[3] ?? 1)]
  await installGuard()
  const guard = Guard.open()
  try {
    const { steps, differences, counts } = await agree(
      guard,
      stories,
      seed,
      (done, played) => {
        if (done % 5 === 0) console.log(`  ${done} stories, ${played} steps`)
      },
      difference => console.log(`\nfound, and now made smaller: ${difference}`),
    )
    for (const difference of differences) console.log(`\n${difference}`)
    for (const [what, count] of [...counts].sort()) console.log(`  ${what.padEnd(48)}${count}`)
    console.log(`guard stories: ${stories} stories, ${steps} steps, ${differences.length} differences`)
    process.exitCode = differences.length === 0 ? 0 : 1
  } finally {
    guard[Symbol.dispose]()
    await removeGuard()
  }
}

void main()
