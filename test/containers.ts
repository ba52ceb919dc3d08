/**
 * Runs the tests of containers, and prints what was run: node --import tsx test/containers.ts.
 * A table of the runtimes with their versions, and of each test with its verdict. The exit status is
 * that of the tests.
 */
import { existsSync, readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { run } from 'node:test'
import { ROOT } from '../scripts/tree.ts'
import { versionsOf } from './helpers/containerd.ts'
import { needsProgram } from './helpers/machine.ts'
import { Podman } from './helpers/podman.ts'
import { versionsOfSandboxes } from './helpers/sandbox-machine.ts'
import { versionsOfPrograms } from './helpers/witness.ts'

/** Folders of tests of containers; those that are not there are left out. */
const FOLDERS = ['test/e2e/containers', 'test/e2e/nri', 'test/containers'] as const

interface Row {
  readonly file: string
  readonly name: string
  readonly verdict: string
}

async function versions(): Promise<string[]> {
  return [
    ...(await versionsOfPodman()),
    ...(await versionsOf('sid')),
    ...(await versionsOf('trixie')),
    ...(await versionsOfPrograms()),
    ...(await versionsOfSandboxes()),
  ]
}

async function versionsOfPodman(): Promise<string[]> {
  const { skip } = needsProgram('podman/usr/bin/podman')
  if (skip !== undefined) return [`Podman, crun, runc: not run: ${skip}`]
  const podman = await Podman.start()
  try {
    const lines: string[] = []
    for (const program of ['podman', 'crun', 'runc']) {
      const { stdout } = await podman.execute(program, '--version')
      lines.push(stdout.split('\n')[0]!)
    }
    return lines
  } finally {
    await podman.end()
  }
}

async function main(): Promise<number> {
  // For the files: what `make test` leaves out, too.
  process.env['BPFTOKEN_TEST_CONTAINERS'] = 'all'
  const files = FOLDERS.map(folder => join(ROOT, folder))
    .filter(existsSync)
    .flatMap(folder => readdirSync(folder).map(name => join(folder, name)))
    .filter(name => name.endsWith('.test.ts'))
  const rows: Row[] = []
  const add = (
    verdict: string,
    { name, file, nesting }: { name: string; file?: string | undefined; nesting: number },
  ): void => {
    if (nesting > 0 && file !== undefined) rows.push({ file: relative(ROOT, file), name, verdict })
  }
  const stream = run({
    files,
    concurrency: 1,
    timeout: 1_200_000,
    execArgv: ['--import', 'tsx'],
  } as Parameters<typeof run>[0])
  let failed = 0
  stream.on('test:pass', test => add(test.skip === undefined ? 'passed' : `skipped: ${test.skip}`, test))
  stream.on('test:fail', test => {
    failed++
    add('FAILED', test)
    console.log(`${test.name}: ${String(test.details.error.cause ?? test.details.error).slice(0, 2000)}`)
  })
  for await (const _ of stream);
  for (const line of await versions()) console.log(line)
  const width = Math.max(0, ...rows.map(({ file }) => file.length))
  for (const { file, name, verdict } of rows)
    console.log(`${file.padEnd(width)}  ${verdict.padEnd(8)}  ${name}`)
  console.log(`${rows.length} tests, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

void main().then(status => {
  process.exitCode = status
})
