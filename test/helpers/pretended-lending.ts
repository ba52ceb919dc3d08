/** Real loans for a pretended daemon, made as a daemon without a guard makes them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { runningVocabulary } from '../../src/delegation/vocabulary.ts'
import { lend, prepareLoan } from '../../src/lending/lend.ts'
import { parsePolicy } from '../../src/policy/parse.ts'
import { procFields } from '../../src/sys/proc-file.ts'
import { ROOT } from './machine.ts'
import type { Asked, Said } from './pretended-daemon.ts'

const TEXT = readFileSync(join(ROOT, 'examples/policies/packet-counter.yaml'), 'utf8')
const vocabulary = runningVocabulary()
const accounts = { uidOf: () => undefined, gidOf: () => undefined }

interface LendBody {
  readonly recipient: { self: true } | { pidfd: number }
  readonly place: { path: string }
}

/** Lends what examples/policies/packet-counter.yaml says, without regard for the network. */
export async function lent({ pid, body }: Asked): Promise<Said> {
  const policy = parsePolicy(TEXT.replace('network: own', 'network: host'), { source: 'test', vocabulary })
  const { place, recipient } = body as LendBody
  const info = (fd: number): string => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')
  const to = 'self' in recipient ? pid : Number(procFields(info(recipient.pidfd)).get('Pid'))
  using loan = await prepareLoan({ policy, vocabulary, accounts, guard: undefined, recipient: to, place })
  await lend(loan)
  return { status: 201, body: { ...LENT, loan: loanWith(policy.rights.capabilities) } }
}

export const loanWith = (capabilities: unknown): object => ({ id: 'loan-1', record: { capabilities } })
export const LENT = { loan: loanWith(['bpf', 'net_admin']), preflight: [], unenforced: [] }
