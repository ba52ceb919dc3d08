/**
 * make demo: a short story with real results, on this very kernel.
 *
 * Each step runs the commands that a user would run, and shows what they print. A step that does not
 * end as the story says ends the demo with status 1; a kernel that cannot do it, with status 4.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const ROOT = path.resolve(__dirname, '../..')

interface Outcome {
  status: number
  output: string
}

/**
 * A copy of what the workload needs, in a place that an ordinary user can read: a clone below /root is
 * not, and the workload is not root.
 */
function stage(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'bpftoken-demo-'))
  chmodSync(directory, 0o755)
  for (const name of ['package.json', 'dist', 'build/Release', 'node_modules/node-gyp-build', 'examples']) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true })
    cpSync(path.join(ROOT, name), path.join(directory, name), { recursive: true })
  }
  return directory
}

/** Shows a command, runs it, and shows what it said, indented. */
function show(directory: string, shown: string, argv: string[]): Outcome {
  console.log(`  $ ${shown}`)
  const done = spawnSync(argv[0]!, argv.slice(1), {
    cwd: directory,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (done.error) throw done.error
  const output = done.stdout + done.stderr
  for (const line of output.trimEnd().split('\n')) console.log(`    ${line}`)
  console.log()
  return { status: done.status ?? 1, output }
}

/** The story is only told when it is true. */
function expect(outcome: Outcome, status: number, said: RegExp): void {
  if (outcome.status === status && said.test(outcome.output)) return
  throw new Error(`expected exit ${status} and ${said}, got exit ${outcome.status}`)
}

function tell(text: string): void {
  console.log(`${text}\n`)
}

function story(directory: string): number {
  const bpftoken = [process.execPath, path.join(ROOT, 'dist/cli/main.js')]
  const counter = [process.execPath, path.join(directory, 'examples/packet-counter.cjs')]
  const policy = 'examples/policies/packet-counter.yaml'
  const run = [...bpftoken, 'run', '--policy', policy, '--']
  const alone = [
    'setpriv',
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    'unshare',
    '--user',
    '--map-root-user',
    '--net',
  ]

  tell('1. What can this machine do? Each line is proved by doing it.')
  const doctor = show(directory, 'bpftoken doctor', [...bpftoken, 'doctor'])
  if (doctor.status === 4) {
    tell('This machine cannot lend BPF, for the reason above: there is nothing more to show.')
    return 4
  }
  expect(doctor, 0, /delegation works/)

  tell(
    '2. A program that counts packets with XDP, as an ordinary user in its own namespaces.\n   Nothing is delegated to it, so it is refused.',
  )
  expect(
    show(directory, 'unshare --user --map-root-user --net node packet-counter.cjs', [...alone, ...counter]),
    1,
    /EPERM[\s\S]*No BPF token is in use/,
  )

  tell('3. What would be lent to it, and how risky is that?')
  for (const line of readFileSync(path.join(directory, policy), 'utf8').trimEnd().split('\n'))
    console.log(`    ${line}`)
  console.log()
  expect(
    show(directory, `bpftoken policy check --max-risk medium ${policy}`, [
      ...[...bpftoken, 'policy', 'check', '--max-risk', 'medium', policy],
    ]),
    0,
    /risk low/,
  )

  tell(
    '4. The same program with that policy: it makes maps, loads, attaches, counts real packets.\n   Then it asks for a kprobe, which nobody lent it, and is refused.',
  )
  const counted = show(directory, `bpftoken run --policy ${policy} -- node packet-counter.cjs`, [
    ...run,
    ...counter,
  ])
  expect(counted, 0, /counted 10 packets/)
  expect(counted, 0, /Missing rights?: progs kprobe/)

  tell('5. Who was it, for the host? And what is left now?')
  expect(
    show(directory, `bpftoken run --policy ${policy} -- cat /proc/self/uid_map`, [
      ...run,
      'cat',
      '/proc/self/uid_map',
    ]),
    0,
    /^\s*0\s+[1-9]\d*\s+1\s*$/,
  )
  expect(show(directory, 'bpftoken ls', [...bpftoken, 'ls']), 0, /nothing is delegated|PATH/)
  tell('Root inside is an ordinary user outside, and the loan ended with the program.')
  return 0
}

function main(): number {
  const directory = stage()
  try {
    return story(directory)
  } catch (error) {
    console.error(`demo: ${(error as Error).message}`)
    return 1
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

process.exitCode = main()
