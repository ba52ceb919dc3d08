/** Records to put, and what is in a registry as plain data. */
import { DEFAULT_TERMS, type Policy, policyToJSON } from '../../../src/policy/policy.ts'
import type { Change } from '../../../src/registry/change.ts'
import {
  type AnswerRecord,
  type LoanRecord,
  policyDigest,
  type RequestRecord,
} from '../../../src/registry/loan-record.ts'

export const BOOT = '8a1f3c66-3f0e-4b0f-9f6c-0123456789ab'
export const DIRECTORY = '/var/lib/bpftoken'
export const AT = '2026-01-02T03:04:05.678Z'

export function policyJson(name: string) {
  const policy: Policy = {
    ...DEFAULT_TERMS,
    approval: 'none',
    name,
    rights: {
      masks: { cmds: 0x21n, maps: 6n, progs: 2n, attachs: 0xffff_ffff_ffff_ffffn },
      capabilities: ['bpf'],
    },
  }
  return policyToJSON(policy)
}

export const asker = {
  pid: 4711,
  uid: 1000,
  gid: 1000,
  loginUid: 1000,
  executable: '/usr/bin/node',
  cgroup: '/user.slice/user-1000.slice/session-3.scope',
  userNamespace: 'user:[4026531837]',
}

export function loan(id: number, changes: Partial<LoanRecord> = {}): LoanRecord {
  const policy = changes.policy ?? policyJson('dev')
  return {
    id,
    kind: 'delegate',
    state: 'making',
    boot: BOOT,
    policy,
    policyDigest: policyDigest(policy),
    asker,
    askedAt: AT,
    place: { path: '/sys/fs/bpf' },
    because: 'subject',
    entry: 'spec.subjects[0]',
    ...changes,
  }
}

export function request(id: number, changes: Partial<RequestRecord> = {}): RequestRecord {
  return {
    id,
    state: 'waiting',
    policy: 'dev',
    policyDigest: policyDigest(policyJson('dev')),
    askedAt: AT,
    until: '2026-01-02T04:04:05.678Z',
    asker,
    recipient: { pid: 4712, userNamespace: 'user:[4026532000]' },
    place: { path: '/sys/fs/bpf' },
    ...changes,
  }
}

export function answer(uid: number, key: string, changes: Partial<AnswerRecord> = {}): AnswerRecord {
  return { uid, key, at: AT, asked: 'a'.repeat(64), status: 201, loan: 1, ...changes }
}

interface Held {
  loans(): Iterable<LoanRecord>
  requests(): Iterable<RequestRecord>
  answer(uid: number, key: string): AnswerRecord | undefined
}

/** Comparable, whatever the order. */
export function shown(held: Held, keys: readonly (readonly [number, string])[] = []): unknown {
  const byId = (a: { id: number }, b: { id: number }): number => a.id - b.id
  return {
    loans: [...held.loans()].sort(byId),
    requests: [...held.requests()].sort(byId),
    answers: keys.flatMap(([uid, key]) => held.answer(uid, key) ?? []),
  }
}

/** All that a sequence of changes leaves, without any bounds. */
export class Model implements Held {
  readonly #loans = new Map<number, LoanRecord>()
  readonly #requests = new Map<number, RequestRecord>()
  readonly #answers = new Map<string, AnswerRecord>()

  constructor(changes: readonly Change[] = []) {
    for (const change of changes) this.apply(change)
  }

  apply({ loan, request, answer }: Change): void {
    if (loan !== undefined) this.#loans.set(loan.id, loan)
    if (request !== undefined) this.#requests.set(request.id, request)
    if (answer !== undefined) this.#answers.set(`${answer.uid} ${answer.key}`, answer)
  }

  loans(): Iterable<LoanRecord> {
    return this.#loans.values()
  }

  requests(): Iterable<RequestRecord> {
    return this.#requests.values()
  }

  answer(uid: number, key: string): AnswerRecord | undefined {
    return this.#answers.get(`${uid} ${key}`)
  }
}
