/**
 * A real process in namespaces of its own, with every capability there, and what is lent to it
 * under the guard.
 */
import assert from 'node:assert/strict'
import { delegate, undelegate } from '../../src/delegation/delegate.ts'
import { openTarget, type Target } from '../../src/delegation/target.ts'
import type { DelegationId, Guard, LendOptions } from '../../src/guard/guard.ts'
import type { Policy } from '../../src/policy/policy.ts'
import type { Masks } from '../../src/policy/vocabulary.ts'
import { Fd } from '../../src/sys/fd.ts'
import { CAPABILITIES, O_DIRECTORY } from '../../src/uapi/constants.ts'
import { eventually } from '../helpers/eventually.ts'
import { type Command, mapAttr } from '../kernel/delegation/attributes.ts'
import {
  callWithin,
  EVERYTHING,
  openIn,
  outcome,
  policyWith,
  tokenWithin,
  vocabulary,
} from '../kernel/delegation/lab.ts'
import { Workload } from '../kernel/delegation/workload.ts'

export const PATH = '/sys/fs/bpf'
const EVERY_CAPABILITY = Object.keys(CAPABILITIES).map(name => name.replace(/^CAP_/, '').toLowerCase())

export interface Changes extends Partial<Omit<Policy, 'rights'>> {
  readonly masks?: Partial<Masks>
  readonly capabilities?: Policy['rights']['capabilities']
}

/** A policy of all rights without limits, with these changes. */
export function policyOf(changes: Changes = {}): Policy {
  const { masks = EVERYTHING, capabilities = ['bpf', 'net_admin', 'perfmon', 'sys_admin'], ...rest } = changes
  const plain = policyWith(masks)
  return { ...plain, ...rest, rights: { ...plain.rights, capabilities } }
}

interface Options extends LendOptions {
  readonly path?: string
}

export interface Loan {
  readonly id: DelegationId
  /** BPF_TOKEN_CREATE in the borrower's user namespace: `ok` or the errno's name. */
  token(): string
  /** Makes a token, which must work. The caller closes it. */
  mustToken(): Fd
}

/** Takes `result` as a descriptor; fails where it is -errno. */
export function made(what: string, result: number): Fd {
  if (result < 0) assert.fail(`${what}: ${outcome(result)}`)
  return new Fd(result)
}

export class Borrower implements Disposable {
  readonly workload: Workload
  readonly target: Target

  private constructor(workload: Workload) {
    this.workload = workload
    this.target = openTarget(workload.pid)
  }

  static async start(how: { uid?: number; network?: 'own' | 'host' } = {}): Promise<Borrower> {
    return new Borrower(await Workload.sandboxed({ ...how, capabilities: EVERY_CAPABILITY }))
  }

  /** A workload that runs already, in namespaces of its own. */
  static of(workload: Workload): Borrower {
    return new Borrower(workload)
  }

  /**
   * Any system call by another process of its user and mount namespaces, in the host's network:
   * result or -errno.
   */
  call(name: string, ...args: unknown[]): number {
    return callWithin(this.target, name, ...args)
  }

  /** One bpf(2) command in the same way: `ok` or the errno's name. */
  run(command: Command): string {
    return outcome(this.call('bpf', command.cmd, command.attr, ...command.refs))
  }

  /** One bpf(2) command that must make an object. The caller closes it. */
  must(command: Command): Fd {
    return made(`bpf command ${command.cmd}`, this.call('bpf', command.cmd, command.attr, ...command.refs))
  }

  map(token: Fd, shape: Parameters<typeof mapAttr>[2] = {}, type = 'hash'): string {
    return this.run({ cmd: 0, attr: mapAttr(type, token.number, shape), refs: [] })
  }

  /** Lends to the workload, which keeps the loan. */
  async borrow(
    guard: Guard,
    policy: Policy,
    { path = PATH, ...options }: Options = {},
  ): Promise<DelegationId> {
    using lender = guard.lend(policy, options)
    await delegate(policy, this.target, vocabulary, { guard: lender, path })
    const id = lender.delegation()
    assert.ok(id !== undefined)
    return id
  }

  /** Lends to the workload, runs `body`, takes the loan back. */
  async lending(
    guard: Guard,
    changes: Changes,
    body: (loan: Loan) => void | Promise<void>,
    options: Options = {},
  ): Promise<void> {
    const path = options.path ?? PATH
    const id = await this.borrow(guard, policyOf(changes), options)
    try {
      using root = await openIn(this.target, path)
      const token = (): number => tokenWithin(this.target, root.number)
      await body({ id, token: () => outcome(token()), mustToken: () => made('BPF_TOKEN_CREATE', token()) })
    } finally {
      await undelegate(this.target, vocabulary, { path })
    }
    // The kernel frees the superblock some time later. Until then the rules of the delegation hold
    // for what is attached in these namespaces.
    await eventually(() => !guard.delegations().some(one => one.id === id), `delegation ${id} has not ended`)
  }

  /**
   * BPF_TOKEN_CREATE by the process itself, from what is mounted at `path` there: its descriptor,
   * or -errno.
   */
  async ownToken(path: string = PATH): Promise<number> {
    const root = await this.workload.must('openat', -100, path, O_DIRECTORY, 0)
    const token = await this.workload.token(root)
    await this.workload.must('close', root)
    return token
  }

  /** Makes a token in the same way and closes it: `ok` or the errno's name. */
  async triesToken(path?: string): Promise<string> {
    const token = await this.ownToken(path)
    if (token < 0) return outcome(token)
    await this.workload.must('close', token)
    return 'ok'
  }

  [Symbol.dispose](): void {
    this.target[Symbol.dispose]()
    this.workload[Symbol.dispose]()
  }
}
