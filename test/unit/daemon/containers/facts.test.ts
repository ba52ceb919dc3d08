/** Whom what is said of a container is said of, when a loan is renewed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { factsOfHolder } from '../../../../src/daemon/containers/facts.ts'
import { KnownContainers } from '../../../../src/daemon/containers/known.ts'
import type { LoanRecord, RecipientFacts } from '../../../../src/registry/loan-record.ts'

const AT = '2026-01-02T03:04:05.000Z'
const THERE = { userNamespace: 'user:[4026532001]', userNamespaceId: '77' }

const known = new KnownContainers(10)
known.announce(
  {
    runtime: 'nri',
    whole: true,
    containers: [
      { id: 'c1', name: 'web', image: 'good' },
      { id: 'c3', pid: 9 },
    ],
  },
  AT,
)

function imageFor(asker: object, recipient: Partial<RecipientFacts>): unknown {
  const loan = { recipient: { pid: 8, ...THERE, container: 'c1', told: {}, ...recipient } } as LoanRecord
  const facts = factsOfHolder(known, { facts: { uid: 0, ...THERE, ...asker } as never }, loan)
  const { container } = facts
  return container !== undefined && 'is' in container ? container.is.image : container?.unknown
}

test('what was announced is said of who is in the namespace that was lent to', () => {
  assert.equal(imageFor({}, {}), 'good')
})

test('nothing is said of who is elsewhere, or in a later namespace of that number', () => {
  assert.equal(imageFor({ userNamespace: 'user:[4026531837]', userNamespaceId: undefined }, {}), undefined)
  assert.equal(imageFor({ userNamespaceId: '78' }, {}), undefined)
})

test('an id that no runtime gave for the loan, but a cgroup by its name, says nothing', () => {
  assert.equal(imageFor({}, { told: undefined }), undefined)
})

test('what its engine had written down counts where nobody announces it, and only then', () => {
  assert.equal(imageFor({}, { container: 'c2', told: { image: 'kept' } }), 'kept')
  assert.equal(imageFor({}, { told: { image: 'kept' } }), 'good')
  assert.equal(imageFor({}, { container: 'c2' }), 'nobody has announced its container')
})

test('a container that was announced with another process is another one', () => {
  assert.equal(imageFor({}, { container: 'c3' }), 'another container has its id by now')
  assert.equal(imageFor({}, { container: 'c3', pid: 9 }), undefined)
})
