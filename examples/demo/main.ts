/**
 * make demo: a short story with real results, on this very kernel; its second part, the guard
 * (guard.ts), in a VM.
 *
 * Each step runs the commands that a user would run, and shows what they print. A step that does
 * not end as the story says ends the demo with status 1; a kernel that cannot do it, with status 4.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { BPFTOKEN, expect, ROOT, said, show, tell } from './stage.ts'

/**
 * A copy of what the workload needs, in a place that an ordinary user can read: a clone below /root
 * is not, and the workload is not root.
 */
function stage(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'bpftoken-demo-'))
  chmodSync(directory, 0o755)
  for (const name of ['package.json', 'dist', 'build/Release', 'examples']) {
    mkdirSync(path.dirname(path.join(directory, name)), { recursive: true })
    cpSync(path.join(ROOT, name), path.join(directory, name), { recursive: true })
  }
  return directory
}

function story(directory: string): number {
  const counter = [process.execPath, path.join(directory, 'examples/packet-counter.cjs')]
  const policy = 'examples/policies/packet-counter.yaml'
  const run = [...BPFTOKEN, 'run', '--policy', policy, '--']
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
  const doctor = show(directory, 'bpftoken doctor', [...BPFTOKEN, 'doctor'])
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
  said(readFileSync(path.join(directory, policy), 'utf8'))
  expect(
    show(directory, `bpftoken policy check --max-risk medium ${policy}`, [
      ...BPFTOKEN,
      ...['policy', 'check', '--max-risk', 'medium', policy],
    ]),
    0,
    /risk medium/,
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
  expect(show(directory, 'bpftoken ls', [...BPFTOKEN, 'ls']), 0, /nothing is delegated|PATH/)
  tell('Root inside is an ordinary user outside, and the loan ended with the program.')
  return 0
}

/**
 * Not on this machine: a demo must not change what it enforces, and its kernel may take no LSM
 * programs.
 */
function guardStory(): number {
  tell(
    'Limits, expiry, revocation and events take the guard: LSM programs in the kernel. To leave this machine as it is, the rest\nhappens in a virtual machine with a kernel of Debian, emulated in software, so that commands take a second or two.',
  )
  const vm = ['--import', 'tsx', 'scripts/vm/vm.ts', '--kernel', '6.12', '--timeout', '1200', '--']
  const done = spawnSync(process.execPath, [...vm, 'node', 'examples/demo/guard.ts'], {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (done.error) throw done.error
  return done.status ?? 1
}

function main(): number {
  const directory = stage()
  try {
    return story(directory) || guardStory()
  } catch (error) {
    console.error(`demo: ${(error as Error).message}`)
    return 1
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

process.exitCode = main()
