/**
 * Single bpf(2) calls, ours beside C. A token can only be made inside a user namespace of its own,
 * so a worker (calls-worker.ts) does the measuring there, and we lend it the rights.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { delegation, policies, targets, vocabularies } from './dist.ts'
import type { Comparison } from './stats.ts'

const POLICY = `
apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: bench }
spec:
  rights: { cmds: [map_create], maps: [hash], progs: [], attachs: [] }
`

export async function measureCalls(roundCount: number): Promise<Comparison[]> {
  const vocabulary = vocabularies.runningVocabulary()
  const policy = policies.parsePolicy(POLICY, { source: 'bench', vocabulary })
  // Host root as root inside: this namespace separates nothing, it only makes tokens possible.
  const node = [process.execPath, ...process.execArgv, path.join(__dirname, 'calls-worker.ts')]
  const worker = spawn('unshare', ['--user', '--map-root-user', '--mount', ...node], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  try {
    await messageFrom(worker) // it runs
    using target = targets.openTarget(worker.pid!)
    await delegation.delegate(policy, target, vocabulary)
    worker.send(roundCount)
    return (await messageFrom(worker)) as Comparison[]
  } finally {
    worker.kill()
  }
}

async function messageFrom(worker: ChildProcess): Promise<unknown> {
  const exited = once(worker, 'exit').then(() => {
    throw new Error('The worker of the call benchmark ended')
  })
  const [message] = await Promise.race([once(worker, 'message'), exited])
  return message
}
