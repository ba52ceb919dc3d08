/** What is kept of each owner: against a plain list, and that nobody pushes out another's. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Shares } from '../../../src/registry/shares.ts'

test('one owner that adds without end loses its own, and nothing of those that have less', () => {
  const shares = new Shares<string>(100, 10)
  for (let i = 0; i < 3; i++) for (const owner of ['alice', 'bob']) shares.add(`${owner} ${i}`, owner)
  for (let i = 0; i < 1000; i++) shares.add(`mallory ${i}`, 'mallory')
  const kept = [...shares.keys()]
  assert.equal(kept.length, 10)
  assert.deepEqual(
    kept.filter(key => !key.startsWith('mallory')),
    ['alice 0', 'bob 0', 'alice 1', 'bob 1', 'alice 2', 'bob 2'],
  )
  assert.equal(kept.at(-1), 'mallory 999')
  // Alone it may have as much as there is, up to its own bound.
  const alone = new Shares<number>(7, 10)
  const dropped = Array.from({ length: 9 }, (_, i) => alone.add(i, 'mallory')).flat()
  assert.deepEqual(
    [dropped, [...alone.keys()]],
    [
      [0, 1],
      [2, 3, 4, 5, 6, 7, 8],
    ],
  )
})

test('it agrees with a plain list, whatever is added and taken away', () => {
  const command = fc.record({
    do: fc.constantFrom('add', 'add', 'add', 'delete'),
    key: fc.nat(30),
    owner: fc.constantFrom('a', 'b', 'c'),
  })
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 9 }),
      fc.array(command, { maxLength: 80 }),
      (perOwner, inAll, commands) => {
        const shares = new Shares<number>(perOwner, inAll)
        let model: { key: number; owner: string }[] = []
        const countOf = (owner: string) => model.filter(one => one.owner === owner).length
        for (const { do: what, key, owner } of commands)
          if (what === 'delete') {
            const before = model.length
            model = model.filter(one => one.key !== key)
            assert.equal(shares.delete(key), model.length < before)
          } else {
            const before = model
            if (!model.some(one => one.key === key)) model = [...model, { key, owner }]
            const dropped = shares.add(key, owner)
            for (const one of dropped) {
              const { owner: whose } = model.find(({ key: found }) => found === one)!
              // The oldest of one that has too many, or of one that has the most.
              assert.equal(model.find(found => found.owner === whose)!.key, one)
              const most = Math.max(...['a', 'b', 'c'].map(countOf))
              assert.ok(countOf(whose) > perOwner || countOf(whose) === most)
              model = model.filter(found => found.key !== one)
            }
            // No more is dropped than must be.
            const needless = dropped.length - Math.max(0, before.length + 1 - inAll)
            assert.ok(needless <= 1)
            assert.ok(model.length <= inAll && countOf(owner) <= perOwner)
          }
        assert.deepEqual(
          [...shares.keys()],
          model.map(({ key }) => key),
        )
      },
    ),
    { numRuns: 500 },
  )
})
