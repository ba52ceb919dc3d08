/**
 * Runs the tests of the given tiers (tiers.ts), or all but those in a browser: node --import tsx
 * scripts/test.ts [--report FILE] [unit|kernel|e2e|vm|vm-all|page|PATH]...
 *
 * Closes with one line, `N passed, N failed, N skipped`, over everything that ran. A file that
 * crashes or hangs counts as failed, and so does each thing that a tier leaves behind on the
 * machine.
 *
 * `vm` boots virtual machines and runs tests in them (vm/matrix.ts says which), `vm-all` the
 * longest of them with each kernel; a path, such as test/vm/guard.test.ts, is run here. One VM runs
 * beside the tiers that touch the machine, since these run one file at a time. --report writes the
 * same result as JSON, with the time of each file.
 */
import { once } from 'node:events'
import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { parseArgs } from 'node:util'
import { install } from './installed.ts'
import { Report } from './report.ts'
import { RUN_VARIABLE, residue, snapshot } from './residue.ts'
import { BY_DEFAULT, pathOf, TIERS, type Tier, tierOf } from './tiers.ts'
import { ROOT } from './tree.ts'
import type { VmRuns } from './vm/matrix.ts'

const total = new Report()

function testFiles(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path)
    .sort()
    .flatMap(name => (name === 'node_modules' ? [] : testFiles(join(path, name))))
    .filter(file => file.endsWith('.test.ts'))
}

async function runTier(tier: Tier, files: string[]): Promise<void> {
  const before = tier.touchesMachine ? snapshot() : undefined
  const stream = run({ files, concurrency: tier.concurrency, timeout: tier.timeoutMs })
  stream.on('test:complete', ({ file, name, details }) => {
    if (isFile(name, file)) total.times.set(where({ file }), details.duration_ms)
  })
  stream.on('test:pass', test => {
    if (test.details.type === 'suite') return
    const reason = test.skip ?? test.todo
    if (reason === undefined) total.passed++
    else total.skips.push(`${where(test)}: ${test.name}: ${reason === true ? 'no reason given' : reason}`)
  })
  stream.on('test:fail', test => {
    // A suite fails because of a test in it, which was counted; unless its own hook failed.
    const cause = (test.details.error as { failureType?: string }).failureType
    if (cause === 'subtestsFailed') return
    const file = where(test)
    total.failures.push(
      isFile(test.name, test.file) ? `${file} crashed, hung or ended with an error` : `${file}: ${test.name}`,
    )
  })
  const report = stream.compose(new spec())
  report.pipe(process.stdout, { end: false })
  await once(report, 'end')
  if (before !== undefined)
    for (const left of await residue(before)) total.failures.push(`left behind: ${left}`)
}

let installed = false

/** What the tests of the commands run is the package as it is installed. */
function installOnce(): void {
  if (installed) return
  installed = true
  console.log('installing the package from its tarball')
  const reason = install()
  if (reason !== undefined)
    total.skips.push(`commands of dist are tested, not of an installed package: ${reason}`)
}

/** Whether a result is of a whole file, whose name is its path. */
function isFile(name: string, file: string | undefined): boolean {
  return file !== undefined && resolve(name) === resolve(file)
}

/** The file only: lines are those of the compiled text. */
function where(test: { file?: string | undefined }): string {
  return test.file === undefined ? 'tests' : relative(ROOT, test.file)
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { report: { type: 'string' } },
    allowPositionals: true,
  })
  process.env[RUN_VARIABLE] = String(process.pid)
  const names = positionals.length > 0 ? positionals : BY_DEFAULT
  const inVms = (name: string): boolean => name === 'vm' || name === 'vm-all'
  let vms: VmRuns | undefined
  const startVms = async (): Promise<VmRuns | undefined> => {
    if (!names.some(inVms)) return undefined
    // A VM, where this file runs too, has no esbuild.
    const { VmRuns } = await import('./vm/matrix.ts')
    return new VmRuns(names.includes('vm-all'))
  }
  for (const name of names.filter(name => !inVms(name))) {
    const path = pathOf(name)
    const tier = tierOf(path)
    if (tier === undefined) throw new Error(`"${name}" is neither a tier nor a file of one`)
    const files = testFiles(path)
    console.log(`\n== ${relative(ROOT, path)}: ${files.length} files ==`)
    if (tier === TIERS['e2e']) installOnce()
    // Tests that run one file at a time leave a processor idle, which a VM can use.
    if (tier.concurrency === 1) vms ??= await startVms()
    if (files.length > 0) await runTier(tier, files)
  }
  vms ??= await startVms()
  if (vms !== undefined) total.add(await vms.finish())
  if (values.report !== undefined) writeFileSync(values.report, JSON.stringify(total))
  console.log(String(total))
  process.exitCode = total.failures.length === 0 ? 0 : 1
}

void main()
