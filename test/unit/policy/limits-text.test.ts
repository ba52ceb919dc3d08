import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeLimits } from '../../../src/policy/limits-text.ts'

test('describeLimits() tells stated counts from the defaults, and leaves out what is not limited', () => {
  assert.equal(describeLimits({}), '1024 tokens (default), 4096 programs (default), 4096 maps (default)')
  assert.equal(
    describeLimits({ programs: 3, instructions: 1000, mapBytes: 1n << 20n, lifetimeSec: 3600 }),
    '1024 tokens (default), 3 programs, 4096 maps (default), 1000 instructions, 1MiB of maps, lifetime 1h',
  )
})
