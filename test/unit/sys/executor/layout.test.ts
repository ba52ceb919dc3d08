/**
 * That we and native/executor/ speak of the same bytes: what it prints of native/executor/layout.h
 * is what we have.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import * as layout from '../../../../src/sys/executor/layout.ts'
import { executorPath } from '../../../../src/sys/prebuilt.ts'

test('the messages of the executor are laid out as native/executor/layout.h says', () => {
  const printed = JSON.parse(execFileSync(executorPath(), ['layout'], { encoding: 'utf8' }))
  assert.deepEqual(printed, {
    version: layout.EXECUTOR_VERSION,
    messageBytes: layout.MESSAGE_BYTES,
    actions: layout.MAX_ACTIONS,
    kinds: [...layout.KINDS, null],
    slots: [...layout.SLOTS, null],
    ops: [...layout.OPS, null],
    structs: Object.fromEntries(
      Object.entries(layout).flatMap(([name, of]) => {
        if (typeof of !== 'object' || !('encode' in of)) return []
        const fields: { off: number }[] = Object.values(of.fields)
        return [[name, [of.size, ...fields.map(({ off }) => off)]]]
      }),
    ),
  })
})
