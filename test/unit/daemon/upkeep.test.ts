/** Whose loans wait for whose when many of them end. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Expiry } from '../../../src/daemon/expiry.ts'
import type { Parts } from '../../../src/daemon/parts.ts'
import { Upkeep } from '../../../src/daemon/upkeep.ts'
import type { LoanRecord } from '../../../src/registry/loan-record.ts'

interface Lent {
  readonly asker: { uid: number; owner?: string }
  readonly recipient: { ownerUid: number; userNamespace: string }
}

const ROOT = { uid: 0 }
/** More than are ended at one time. */
const MANY = 20

/** Whether the last of them is ended while all others wait for file systems that do not answer. */
async function endsBeside(slow: (i: number) => Lent, last: Lent): Promise<boolean> {
  const loans = [...Array.from({ length: MANY }, (_, i) => slow(i)), last].map(
    (lent, id) => ({ ...lent, id, state: 'live', expires: { bootNs: String(id) } }) as unknown as LoanRecord,
  )
  const begun: number[] = []
  let release = (): void => {}
  const hangs = new Promise<boolean>(resolve => {
    release = () => resolve(false)
  })
  const book = {
    loan: (id: number) => loans[id],
    inTurn(id: number) {
      begun.push(id)
      return id === MANY ? Promise.resolve(false) : hangs
    },
  }
  const expiry = new Expiry({ set() {} })
  for (const loan of loans) expiry.follow(loan)
  const upkeep = new Upkeep(
    { book, clock: { bootNs: () => BigInt(MANY) }, log: {} } as unknown as Parts,
    expiry,
  )
  const all = upkeep.expire()
  for (let i = 0; i < 10; i++) await turn()
  const isEnded = begun.includes(MANY)
  release()
  await all
  assert.equal(begun.length, MANY + 1)
  return isEnded
}

const bobs: Lent = { asker: { uid: 1001 }, recipient: { ownerUid: 1001, userNamespace: 'user:[9]' } }

test('a user with many numbers in user namespaces of their own holds up no other', async () => {
  const alices = (i: number): Lent => ({
    asker: { uid: 1000 },
    recipient: { ownerUid: 100_000 + i, userNamespace: `user:[${100 + i}]` },
  })
  assert.equal(await endsBeside(alices, bobs), true)
  assert.equal(await endsBeside(alices, { ...alices(MANY), asker: { uid: 1000 } }), false)
})

test('a container that root made holds up no other one', async () => {
  const of = (namespace: number, asker: Lent['asker'] = ROOT): Lent => ({
    asker,
    recipient: { ownerUid: 0, userNamespace: `user:[${namespace}]` },
  })
  assert.equal(await endsBeside(() => of(7), of(8)), true)
  assert.equal(await endsBeside(() => of(7, { uid: 100_000, owner: 'user:[7]' }), of(8)), true)
  assert.equal(await endsBeside(() => of(7), of(7)), false)
})
