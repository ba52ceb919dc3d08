/**
 * Every file of these tests ends by proving that it left no descriptor, mount or process behind.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { after, before } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { listInstances } from '../../../src/delegation/instances.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { Lab, vocabulary } from './lab.ts'
import { removeProgram } from './workload.ts'

/** Our children and theirs carry this in their environment; other tests may run beside us. */
const MARK = `BPFTOKEN_KERNEL_TEST=${process.pid}`

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // exited meanwhile
  }
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap(number => {
    try {
      return `${number} ${readlinkSync(`/proc/self/fd/${number}`)}`
    } catch {
      return [] // the directory that was being listed
    }
  })
}

/** `pid command` of every process that we started and that still runs; tsx keeps its compiler. */
export function ourProcesses(): string[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(pid => read(`/proc/${pid}/environ`).includes(MARK) || isExecutorOfOurs(pid))
    .map(pid => `${pid} ${read(`/proc/${pid}/comm`).trim()}`)
    .filter(process => !process.endsWith(' esbuild'))
}

/** Executors and their children have no environment: they are known by their parents. */
function isExecutorOfOurs(pid: string): boolean {
  const status = read(`/proc/${pid}/status`)
  if (!/^Name:\tbpftoken-(execut|inside)/m.test(status)) return false
  const parent = /^PPid:\t(\d+)$/m.exec(status)?.[1] ?? ''
  return parent === String(process.pid) || isExecutorOfOurs(parent)
}

/**
 * `path options` of every delegated bpffs in our own mount namespace or in one of our processes.
 */
export function ourInstances(): string[] {
  const pids = new Set([process.pid, ...ourProcesses().map(line => Number.parseInt(line, 10))])
  return listInstances(vocabulary)
    .filter(instance => instance.pids.some(pid => pids.has(pid)))
    .map(({ path, options }) => `${path} ${options.join(',')}`)
}

/** To be called once by each file. */
export function leavesNothing(): void {
  let known = new Set<string>()

  before(async () => {
    const [name, value] = MARK.split('=')
    process.env[name!] = value
    traceFds()
    // What Node, tsx and the addon open once and keep; tsx at the first module that is loaded
    // lazily.
    await import('../../../src/delegation/token-support.ts')
    const warmUp = await Lab.open()
    await warmUp.lending({ cmds: 1n }, () => {})
    warmUp[Symbol.dispose]()
    await warmUp.sandbox.exited
    await sleep(20)
    known = new Set(descriptors())
  })

  after(async () => {
    try {
      await proveNothingIsLeft()
    } finally {
      // They would keep Node waiting for them, and the failure from being told.
      for (const line of ourProcesses()) process.kill(Number.parseInt(line, 10), 'SIGKILL')
    }
  })

  async function proveNothingIsLeft(): Promise<void> {
    removeProgram()
    await endExecutors()
    assert.deepEqual(openFds(), [], 'descriptors that nobody closed')
    const left = () => ({
      descriptors: descriptors().filter(fd => !known.has(fd)),
      processes: ourProcesses(),
      instances: ourInstances(),
    })
    // Node closes pipes and reaps children on later turns of its loop.
    for (let turn = 0; turn < 1500 && Object.values(left()).some(list => list.length > 0); turn++)
      await sleep(20)
    assert.deepEqual(left(), { descriptors: [], processes: [], instances: [] })
  }
}
