/**
 * Objects in which thousands of things lead to one big thing are read in time and memory that grow
 * with their size, and not with its square: each shape of test/corpus/shapes.ts, by all readers.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { check } from '../../../corpus/hostile.ts'
import { seedOf } from '../../../corpus/mutate.ts'
import { SHAPES } from '../../../corpus/shapes.ts'

/** With one look for each pair, these take many times what a reader may. */
const COUNT = 2000

for (const [name, make] of Object.entries(SHAPES))
  test(`${COUNT} of a shape that no compiler makes: ${name}`, () => {
    const bytes = Buffer.from(make(COUNT))
    const finding = check(0, seedOf(name, bytes), bytes)
    assert.equal(finding?.what, undefined)
  })
