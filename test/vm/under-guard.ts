/**
 * The guard, with or without a workload to lend to, for the tests of a file:
 *
 *   underGuard()
 *   test('...', { skip }, () => borrower.lending(guard, {}, ({ token }) => assert.equal(token(), 'ok')))
 */
import { after, before } from 'node:test'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { removeProgram } from '../kernel/delegation/workload.ts'
import { Borrower } from './borrower.ts'
import { skip } from './guarded.ts'

export let guard: Guard
export let borrower: Borrower

/** The guard alone: to be called once by a file, before its tests. */
export function withGuard(): void {
  before(install)
  after(remove)
}

/** With the workload: to be called once by a file, before its tests. */
export function underGuard(): void {
  before(begin)
  after(end)
}

async function install(): Promise<void> {
  if (skip !== false) return
  await installGuard()
  guard = Guard.open()
}

async function remove(): Promise<void> {
  if (skip !== false) return
  guard[Symbol.dispose]()
  await removeGuard()
}

/** Installs the guard and starts the workload. */
export async function begin(): Promise<void> {
  if (skip !== false) return
  await install()
  borrower = await Borrower.start()
}

/** Ends the workload, and takes the guard away. */
export async function end(): Promise<void> {
  if (skip !== false) return
  borrower[Symbol.dispose]()
  await borrower.workload.exited
  removeProgram()
  await endExecutors()
  await remove()
}
