/**
 * Runs the tests of containers, and prints what was run: node --import tsx test/containers.ts
 * [FILE...]. A table with a row for each runtime, version and case, with its verdict. The exit status
 * is that of the tests.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { RUN_VARIABLE, residue, snapshot } from '../scripts/residue.ts'
import { ROOT } from '../scripts/tree.ts'
import { needsTree, SUITES, versionsIn } from './helpers/debian-tree.ts'
import { needsProgram } from './helpers/machine.ts'
import { Podman } from './helpers/podman.ts'
import { versionsOfSandboxes } from './helpers/sandbox-machine.ts'
import { versionsOfPrograms } from './helpers/witness.ts'

/** Folders of tests of containers; those that are not there are left out. */
const FOLDERS = ['test/e2e/containers', 'test/e2e/nri', 'test/containers'] as const

/** Of this Debian; of the engines of newer suites, and of their containerd. */
const PROGRAMS = ['bin/podman', 'bin/crun', 'sbin/runc'] as const
const ENGINES = [...PROGRAMS, 'sbin/dockerd'] as const
const CONTAINERD = ['bin/crun', 'sbin/runc', 'bin/containerd'] as const

interface Row {
  /** What is tested, as the test's suite is called, and its file where it has none. */
  readonly subject: string
  readonly name: string
  readonly verdict: string
}

/** Versions by suite and program, in small letters; "" is this Debian. */
type Versions = ReadonlyMap<string, ReadonlyMap<string, string>>

async function versions(): Promise<Versions> {
  const found = new Map<string, Map<string, string>>()
  const add = (suite: string, programs: readonly string[], lines: readonly string[]): void => {
    const numbers = lines.map(line => /\d+\.\d+[\w.]*/.exec(line)?.[0] ?? 'not there')
    const names = programs.map(program => program.replace(/^.*\//, '').replace('dockerd', 'docker'))
    const more = names.map((name, i) => [name, numbers[i]!] as const)
    found.set(suite, new Map([...(found.get(suite) ?? []), ...more]))
  }
  if (needsProgram('podman/usr/bin/podman').skip === undefined) {
    const podman = await Podman.start()
    try {
      const said = PROGRAMS.map(program => podman.execute(`/usr/${program}`, '--version'))
      add(
        '',
        PROGRAMS,
        (await Promise.all(said)).map(({ stdout }) => stdout.split('\n')[0]!),
      )
    } finally {
      await podman.end()
    }
  }
  for (const suite of SUITES) {
    if (needsTree(suite, 'usr/bin/crun').skip === undefined)
      add(suite, CONTAINERD, await versionsIn(suite, CONTAINERD))
    const engines = `${suite}-engines` as const
    if (needsTree(engines, 'usr/bin/podman').skip === undefined)
      add(suite, ENGINES, await versionsIn(engines, ENGINES))
  }
  // What tests run in any of them, and sandboxes that are no runtimes.
  const others = new Map([...(await versionsOfSandboxes()), ['', await versionsOfPrograms()]])
  for (const [suite, more] of others) found.set(suite, new Map([...(found.get(suite) ?? []), ...more]))
  return found
}

/** Versions of the runtimes that these words name. */
function versionOf(words: string, all: Versions): string {
  const suite = SUITES.find(name => words.includes(name)) ?? ''
  const programs = all.get(suite) ?? new Map<string, string>()
  const named = [...programs].filter(([name]) => new RegExp(`\\b${name}\\b`, 'i').test(words))
  return named.map(([name, version]) => `${name} ${version}`).join(', ')
}

async function main(): Promise<number> {
  // For the files: what `make test` leaves out, too.
  process.env['BPFTOKEN_TEST_CONTAINERS'] = 'all'
  const named = process.argv.slice(2).map(file => resolve(file))
  const files = FOLDERS.map(folder => join(ROOT, folder))
    .filter(existsSync)
    .flatMap(folder => readdirSync(folder).map(name => join(folder, name)))
    .filter(name => name.endsWith('.test.ts'))
  const rows: Row[] = []
  let failed = 0
  process.env[RUN_VARIABLE] = String(process.pid)
  const before = snapshot()
  const stream = run({
    files: named.length === 0 ? files : named,
    concurrency: 1,
    timeout: 1_200_000,
    execArgv: ['--import', 'tsx'],
  } as Parameters<typeof run>[0])
  /** Names of the suites that are open, by their depth. */
  const open: string[] = []
  stream.on('test:start', ({ name, nesting }) => {
    open[nesting] = name
  })
  type Test = { name: string; file?: string; nesting: number; details: { type?: string } }
  const add = (verdict: string, { name, file, nesting, details }: Test): void => {
    const isWhole = file !== undefined && resolve(name) === resolve(file)
    if (isWhole || (details.type === 'suite' && !verdict.startsWith('skipped'))) return
    const above = open[nesting - 1]
    const subject = nesting === 0 || above === undefined || existsSync(above) ? '' : above
    rows.push({ subject: subject || relative(ROOT, file ?? ''), name, verdict })
  }
  const said = new Set<unknown>()
  stream.on('test:diagnostic', ({ message }) => {
    if (message.startsWith('measured: ')) said.add(message)
  })
  stream.on('test:pass', test =>
    add(test.skip === undefined ? 'passed' : `skipped: ${test.skip}`, test as Test),
  )
  stream.on('test:fail', test => {
    const { failureType, cause } = test.details.error as { failureType?: string; cause?: unknown }
    if (failureType === 'subtestsFailed') return
    failed++
    add('FAILED', test as Test)
    console.log(`${test.name}: ${String(cause ?? test.details.error).slice(0, 3000)}`)
  })
  for await (const _ of stream);
  print(rows, await versions())
  for (const message of said) console.log(message)
  for (const left of await residue(before)) {
    failed++
    console.log(`left behind: ${left}`)
  }
  const skipped = rows.filter(({ verdict }) => verdict.startsWith('skipped')).length
  console.log(`${rows.length} rows, ${skipped} skipped, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

function print(rows: readonly Row[], all: Versions): void {
  for (const suite of ['', ...SUITES])
    if (!all.has(suite)) console.log(`${suite || 'this Debian'}: not run: its programs are missing`)
  const lines = [
    ['runtime', 'versions', 'verdict', 'case'],
    ...rows.map(({ subject, name, verdict }) => {
      const version = versionOf(subject, all) || versionOf(name, all)
      return [subject, version, verdict, name]
    }),
  ]
  const widths = [0, 1, 2].map(i => Math.min(60, Math.max(...lines.map(line => line[i]!.length))))
  for (const [i, line] of lines.entries()) {
    console.log(line.map((word, column) => word.padEnd(widths[column] ?? 0)).join('  '))
    if (i === 0) console.log(widths.map(width => '-'.repeat(width)).join('  '))
  }
}

void main().then(status => {
  process.exitCode = status
})
