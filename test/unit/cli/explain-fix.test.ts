import assert from 'node:assert/strict'
import { test } from 'node:test'
import { policyNamedIn } from '../../../src/cli/commands/explain-fix.ts'

const named = (words: string) => policyNamedIn(words.split(' '))

test('the policy of a run that is explained is the one that run itself takes', async () => {
  assert.equal(await named('bpftoken run --policy a.yaml -- ./loader'), 'a.yaml')
  assert.equal(await named('/usr/bin/bpftoken run --user nobody --policy=a.yaml ./loader'), 'a.yaml')
  // The last one counts.
  assert.equal(await named('bpftoken run --policy a.yaml --policy b.yaml -- ./loader'), 'b.yaml')
  // Words of the program, and values of other options, are none of ours.
  assert.equal(await named('bpftoken run --policy a.yaml ./loader --policy b.yaml'), 'a.yaml')
  assert.equal(await named('bpftoken run --policy a.yaml -- ./loader --policy b.yaml'), 'a.yaml')
  assert.equal(await named('bpftoken run --policy a.yaml --env --policy=b.yaml -- ./loader'), 'a.yaml')
})

test('of what is no such run, or names no file, there is none', async () => {
  assert.equal(await named('bpftoken obj load --policy a.yaml x.o'), undefined)
  assert.equal(await named('bpftoken policy check --policy a.yaml'), undefined)
  assert.equal(await named('loader run --policy a.yaml -- x'), undefined)
  assert.equal(await named('bpftoken run --policy packet-counter -- ./loader'), undefined)
  assert.equal(await named('bpftoken run --policy - -- ./loader'), undefined)
  assert.equal(await named('bpftoken run --polcy a.yaml -- ./loader'), undefined)
  assert.equal(await named('bpftoken run ./loader --policy a.yaml'), undefined)
})
