/**
 * What a hostile workload tries, by a list in SECURITY.md. The list says who refuses each attempt
 * and how; a file of tests makes the attempts, one row each, and is held to the list:
 *
 *   hostile('What a hostile workload cannot do')
 *   attempt('name of the row', refused => lending({}, loan => refused(loan.token(), loan.id)))
 *
 * Rows do not depend on each other. After a row that fails, guard and workload are made anew for
 * the next.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { DelegationId } from '../../src/guard/guard.ts'
import type { Policy } from '../../src/policy/policy.ts'
import { conclusive } from '../helpers/conclusive.ts'
import { eventually } from '../helpers/eventually.ts'
import { ROOT } from '../helpers/machine.ts'
import { Borrower, type Changes, type Loan, policyOf } from './borrower.ts'
import { skip } from './guarded.ts'
import { begin, borrower, end, guard, underGuard } from './under-guard.ts'

// ---- the list ----

export interface Attempt {
  readonly name: string
  /** The guard's control point and reason; undefined: the kernel itself refuses. */
  readonly guard: { readonly point: string; readonly reason: string } | undefined
  /** Name of the errno, or in words what becomes of it. */
  readonly answer: string
}

const ROW = /^\| (?<name>[^|]+) \| (?:kernel|guard: (?<point>\w+), (?<reason>[\w-]+)) \| (?<answer>[^|]+) \|$/

/** The rows of the table below this heading, of level 2 or 3, of SECURITY.md. */
export function readAttempts(heading: string): Attempt[] {
  const text = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8')
  const section = text.split(/^###? /m).find(part => part.startsWith(`${heading}\n`)) ?? ''
  const [, , ...rows] = section.split('\n').filter(line => line.startsWith('|'))
  return rows.map(row => {
    const { name, point, reason, answer } = ROW.exec(row)?.groups ?? {}
    if (name === undefined || answer === undefined) throw new Error(`SECURITY.md has an odd row: ${row}`)
    return { name, guard: point === undefined ? undefined : { point, reason: reason! }, answer }
  })
}

let listed: ReadonlyMap<string, Attempt>
const tried: string[] = []

// ---- whom and what rows have ----

/** The workload. */
export { borrower as mallory, guard } from './under-guard.ts'

/** Each file calls this once, before its rows. */
export function hostile(heading: string): void {
  listed = new Map(readAttempts(heading).map(one => [one.name, one]))
  underGuard()
  test(`the list of SECURITY.md is what is tried here: ${heading}`, () => {
    assert.ok(listed.size > 0)
    assert.deepEqual([...listed.keys()].sort(), [...tried].sort())
  })
}

/** The mode of the policies by which the current row lends. */
let mode: Policy['mode'] = 'enforce'

/** Lends to mallory, runs `body`, takes the loan back. */
export function lending(
  changes: Changes,
  body: (loan: Loan) => void | Promise<void>,
  options: Parameters<Borrower['lending']>[3] = {},
): Promise<void> {
  return borrower.lending(guard, { mode, ...changes }, body, options)
}

/** The policy by which `lending` lends. */
export function lent(changes: Changes = {}): Policy {
  return policyOf({ mode, ...changes })
}

/** Lends to another workload, which may change its namespaces, and ends it after `body`. */
export async function guest(
  changes: Changes,
  body: (guest: Borrower, id: DelegationId) => Promise<void>,
  how: Parameters<typeof Borrower.start>[0] = {},
): Promise<void> {
  const borrower = await Borrower.start(how)
  try {
    await body(borrower, await borrower.borrow(guard, lent(changes)))
  } finally {
    borrower[Symbol.dispose]()
    await borrower.workload.exited
  }
}

// ---- rows ----

/** Told the result, and the delegation that the guard's event must name; undefined: none. */
export type Refused = (answer: string, delegation?: DelegationId) => void
export type Body = (refused: Refused) => Promise<void>

/** Ends what hangs. */
const ROW_LIMIT = { timeout: 600_000 }

/**
 * One attempt of the list. `body` makes it and reports the result. It also shows that whoever may
 * do the same can. A race may throw `Inconclusive`.
 */
export function attempt(name: string, body: Body): void {
  tried.push(name)
  test(name, { skip, ...ROW_LIMIT }, t => row(t, name, body, 'enforce'))
}

/**
 * Makes the attempt twice. Under a permissive policy it succeeds, and the event says what would
 * have been refused.
 */
export function policyAttempt(name: string, body: Body): void {
  attempt(name, body)
  test(`${name}: let through by a permissive policy`, { skip, ...ROW_LIMIT }, t =>
    row(t, name, body, 'permissive'),
  )
}

async function row(t: TestContext, name: string, body: Body, its: Policy['mode']): Promise<void> {
  let clean = false
  // This runs also when the row has failed or hangs.
  t.after(async () => {
    if (clean) return
    await end()
    await begin()
  })
  mode = its
  await conclusive(t, () => make(name, body))
  await eventually(() => guard.delegations().length === 0, 'a delegation is left')
  assert.deepEqual(guard.policies(), [], 'an ability is left')
  clean = true
}

async function make(name: string, body: Body): Promise<void> {
  const expected = listed.get(name)
  assert.ok(expected !== undefined, 'SECURITY.md does not have it')
  let count = 0
  guard.pastEvents()
  await body((answer, delegation) => {
    count++
    assert.equal(answer, mode === 'enforce' ? expected.answer : 'ok')
    if (expected.guard === undefined) return
    const { point, reason } = expected.guard
    const told = guard.pastEvents().filter(({ verdict }) => verdict !== 'allowed')
    const event = told.find(one => one.point === point && one.reason === reason)
    const seen = told.map(one => `${one.point}: ${one.reason}`).join(', ')
    assert.ok(event !== undefined, `no event says ${point}: ${reason}, but ${seen || 'there is none'}`)
    assert.equal(event.verdict, mode === 'enforce' ? 'refused' : 'would-refuse')
    assert.equal(event.delegation, delegation)
  })
  assert.ok(count > 0, 'nothing was tried')
}
