/**
 * `make bench`: how long our calls take, beside plain C in the same run.
 *
 *   tsx bench/run.ts [--json] [--rounds N] [delegation] [calls] [startup] [front] [ls] [objects]
 *     [ring] [guard] [model] [record] [explain]
 *
 * Needs root, gcc, a built dist/, a kernel with BPF tokens, and for objects the corpus. A goal that
 * is missed is printed, not failed: the numbers are as noisy as the machine.
 */
import os from 'node:os'
import { parseArgs } from 'node:util'
import { measureCalls } from './calls.ts'
import type { Cost, CostRatio } from './cost.ts'
import { type DelegationResult, measureDelegation } from './delegation.ts'
import { type ExplainResult, measureExplain } from './explain.ts'
import { type FrontResult, measureFront } from './front.ts'
import { type GuardResult, measureGuard } from './guard.ts'
import { type ListingResult, measureListing } from './listing.ts'
import { type ModelResult, measureModel } from './model.ts'
import { measureObjects, type ObjectsResult } from './objects.ts'
import { measureRecording } from './record.ts'
import { measureRing } from './ring.ts'
import { measureStartup, type StartupResult } from './startup.ts'
import type { Comparison, Summary } from './stats.ts'

// biome-ignore format: a list
const SECTIONS = [
  'delegation', 'calls', 'startup', 'front', 'ls', 'objects', 'ring', 'guard', 'model', 'record',
  'explain',
] as const
const DEFAULT_ROUNDS = 30

function numbers(summary: Summary, digits: number): string {
  return [summary.min, summary.median, summary.p90].map(n => n.toFixed(digits).padStart(8)).join('')
}

function verdict(met: boolean, goal: string): string {
  return `goal ${goal}: ${met ? 'met' : 'MISSED'}`
}

function printComparisons(
  comparisons: readonly Comparison[],
  sides: readonly [string, string] = ['ours', 'C'],
): void {
  const head = `${'min'.padStart(8)}${'median'.padStart(8)}${'p90'.padStart(8)}`
  console.log(`${''.padEnd(32)}    ${sides[0].padEnd(24)}   ${sides[1]}`)
  console.log(`${''.padEnd(32)}${head}   ${head}   ratio (p10-p90)`)
  for (const { name, unit, ours, c, ratio, ratioSpread, goal } of comparisons) {
    const spread = ratioSpread.map(r => r.toFixed(2)).join('-')
    const goalText = goal === undefined ? '' : verdict(ratio <= goal, `${goal}x`)
    console.log(
      `${`${name}, ${unit}`.padEnd(32)}${numbers(ours, 0)}   ${numbers(c, 0)}` +
        `   ${ratio.toFixed(2)}x (${spread})  ${goalText}`.trimEnd(),
    )
  }
}

function printDelegation({ comparisons, firstUs, perSecond, mounts }: DelegationResult): void {
  console.log('One delegation into an existing namespace')
  printComparisons(comparisons)
  console.log(`  the first one in a process: ${firstUs.toFixed(0)} us`)
  const gain = perSecond.many / perSecond.one
  console.log(
    `  in a second, unmounting included: ${perSecond.one.toFixed(0)} one by one, ${perSecond.many.toFixed(0)} sixteen at a time: ${gain.toFixed(1)}x  ${verdict(gain >= 3, '3x')}`,
  )
  const growth = mounts.manyUs / mounts.fewUs
  console.log(
    `  with 10,000 mounts on the machine and 1,000 in the target: ${mounts.manyUs.toFixed(0)} us, with few ${mounts.fewUs.toFixed(0)} us: ${growth.toFixed(2)}x`,
  )
}

function printCosts(costs: Readonly<Record<string, Cost>>): void {
  const head = `${'min'.padStart(8)}${'median'.padStart(8)}${'p90'.padStart(8)}`
  console.log(`${''.padEnd(32)}    on processors${' '.repeat(11)}   from start to end`)
  console.log(`${'  ms'.padEnd(32)}${head}   ${head}`)
  for (const [name, { wall, cpu }] of Object.entries(costs))
    console.log(`  ${name.padEnd(30)}${numbers(cpu, 1)}   ${numbers(wall, 1)}`)
}

function ratioText({ cpu, wall }: CostRatio, goal: number): string {
  return `${cpu.toFixed(2)}x on processors, ${wall.toFixed(2)}x from start to end  ${verdict(cpu <= goal, `${goal}x`)}`
}

function printStartup({ costs, ratios, goals }: StartupResult): void {
  console.log('Commands, beside node -e 0; run beside that and unshare true')
  printCosts(costs)
  for (const [name, goal] of Object.entries(goals))
    console.log(`  ${name.padEnd(30)}${ratioText(ratios[name as keyof typeof ratios], goal)}`)
}

function printExplain({ costs, overMs, goalMs }: ExplainResult): void {
  console.log('explain of one call of a running process, beside node -e 0')
  printCosts(costs)
  const { cpu, wall } = overMs
  console.log(
    `  over node -e 0: ${cpu.toFixed(0)} ms on processors, ${wall.toFixed(0)} by the clock  ${verdict(cpu <= goalMs, `${goalMs} ms`)}`,
  )
}

function printFront({ costs, over, goalMs, without }: FrontResult): void {
  console.log('run -- true with the daemon up, beside unshare(1) in the same round')
  const head = `${'min'.padStart(8)}${'median'.padStart(8)}${'p90'.padStart(8)}`
  console.log(`${'  ms'.padEnd(32)}${head}   ${head}`)
  for (const [name, cost] of Object.entries(costs)) {
    const more = over[name]
    const beyond = more && `${numbers(more, 1)} over  ${verdict(more.median <= goalMs, `${goalMs} ms over`)}`
    console.log(`  ${name.padEnd(30)}${numbers(cost, 1)}   ${beyond ?? ''}`.trimEnd())
  }
  if (without !== undefined) console.log(`  without systemd-run: ${without}`)
}

function printListing({ ours, c, ratio, goal }: ListingResult): void {
  console.log('bpftoken ls of 1,000 delegations among 10,000 mounts')
  printCosts({ 'bpftoken ls': ours, 'C, mountinfo': c })
  console.log(`  ${ratioText(ratio, goal)}`)
}

function printObjects({ comparisons, oursPerSecond, libbpfPerSecond }: ObjectsResult): void {
  console.log('Object files, beside libbpf')
  printComparisons(comparisons)
  console.log(
    `  objects read in a second: ${oursPerSecond.toFixed(0)}, by libbpf ${libbpfPerSecond.toFixed(0)}`,
  )
}

function printGuard({ hooks, calls, shares, shareGoal, nothingNs, nothingGoalNs }: GuardResult): void {
  console.log("The guard's judgements, on this processor")
  const head = `${'min'.padStart(8)}${'median'.padStart(8)}${'p90'.padStart(8)}`
  console.log(`${''.padEnd(32)}    in a row${' '.repeat(12)}   each after real calls`)
  console.log(`${'  hook, ns'.padEnd(32)}${head}   ${head}`)
  for (const { name, inARow, afterCalls } of hooks)
    console.log(`  ${name.padEnd(30)}${numbers(inARow, 0)}   ${numbers(afterCalls, 0)}`)
  console.log(`${'  call without a guard, ns'.padEnd(32)}${head}`)
  for (const [name, summary] of Object.entries(calls))
    console.log(`  ${name.padEnd(30)}${numbers(summary, 0)}`)
  console.log('  all hooks of a call, and their part of it')
  for (const { call, callNs, hooksNs, hooksAfterCallsNs } of shares) {
    const part = (ns: number): string =>
      `${ns.toFixed(0).padStart(6)} ns ${((100 * ns) / callNs).toFixed(1)}%`
    const goal = verdict(hooksAfterCallsNs / callNs <= shareGoal, `${100 * shareGoal}%`)
    console.log(`  ${call.padEnd(30)}${part(hooksNs)}, after real calls ${part(hooksAfterCallsNs)}   ${goal}`)
  }
  const goal = verdict(nothingNs <= nothingGoalNs, `${nothingGoalNs} ns`)
  console.log(`  a call that is none of its business: ${nothingNs.toFixed(1)} ns  ${goal}`)
}

function printModel({ perSecond, goal }: ModelResult): void {
  console.log('Decisions of the kernel model in a second of processor time')
  const met = verdict(perSecond.median >= goal, String(goal))
  console.log(`  ${numbers(perSecond, 0)} (min, median, p90)  ${met}`)
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      rounds: { type: 'string', default: String(DEFAULT_ROUNDS) },
    },
    allowPositionals: true,
  })
  const rounds = Number(values.rounds)
  const unknown = positionals.find(name => !(SECTIONS as readonly string[]).includes(name))
  if (unknown !== undefined)
    throw new Error(`There is no section "${unknown}"; there are ${SECTIONS.join(', ')}`)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error('--rounds is a positive number')
  if (process.geteuid?.() !== 0) throw new Error('Delegating needs root: run this as root')
  const wanted = (section: (typeof SECTIONS)[number]): boolean =>
    positionals.length === 0 || positionals.includes(section)

  const machine = {
    kernel: os.release(),
    node: process.version,
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cpus: os.cpus().length,
    rounds,
  }
  const say = (print: () => void): void => {
    if (values.json) return
    print()
    console.log()
  }
  say(() =>
    console.log(
      `Linux ${machine.kernel}, Node ${machine.node}, ${machine.cpus} x ${machine.cpu}, ${rounds} rounds`,
    ),
  )
  const result: {
    delegation?: DelegationResult
    calls?: Comparison[]
    startup?: StartupResult
    front?: FrontResult
    ls?: ListingResult
    objects?: ObjectsResult
    ring?: Comparison[]
    guard?: GuardResult
    model?: ModelResult
    record?: Comparison[]
    explain?: ExplainResult
  } = {}
  if (wanted('delegation')) {
    const measured = await measureDelegation(rounds)
    result.delegation = measured
    say(() => printDelegation(measured))
  }
  if (wanted('calls')) {
    const measured = await measureCalls(rounds)
    result.calls = measured
    say(() => {
      console.log('Single bpf(2) calls, inside a user namespace')
      printComparisons(measured)
    })
  }
  if (wanted('startup')) {
    const measured = await measureStartup(rounds)
    result.startup = measured
    say(() => printStartup(measured))
  }
  if (wanted('explain')) {
    const measured = await measureExplain(rounds)
    result.explain = measured
    say(() => printExplain(measured))
  }
  if (wanted('front')) {
    const measured = await measureFront(rounds)
    result.front = measured
    say(() => printFront(measured))
  }
  if (wanted('ls')) {
    const measured = await measureListing(Math.max(5, Math.ceil(rounds / 3)))
    result.ls = measured
    say(() => printListing(measured))
  }
  if (wanted('objects')) {
    const measured = await measureObjects(rounds)
    result.objects = measured
    say(() => printObjects(measured))
  }
  if (wanted('ring')) {
    const measured = await measureRing(rounds)
    result.ring = measured
    say(() => {
      console.log('Ring buffer, records of 64 bytes')
      printComparisons(measured)
    })
  }
  if (wanted('guard')) {
    const measured = await measureGuard(rounds)
    result.guard = measured
    say(() => printGuard(measured))
  }
  if (wanted('model')) {
    const measured = measureModel(rounds)
    result.model = measured
    say(() => printModel(measured))
  }
  if (wanted('record')) {
    const measured = await measureRecording(rounds)
    result.record = measured
    say(() => {
      console.log('System calls while bpftoken record watches, and while nobody does')
      printComparisons(measured, ['recorded', 'not'])
    })
  }
  if (values.json) console.log(JSON.stringify({ machine, ...result }, null, 2))
}

main().catch(error => {
  console.error(`bench: ${(error as Error).message}`)
  process.exitCode = 1
})
