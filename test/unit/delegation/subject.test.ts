import assert from 'node:assert/strict'
import { test } from 'node:test'
import { labelFrom } from '../../../src/delegation/subject.ts'

test('labelFrom() takes labels as the kernel gives them, and AppArmor profiles only where they confine', () => {
  for (const [text, label] of [
    ['system_u:system_r:container_t:s0:c1,c2\0', 'system_u:system_r:container_t:s0:c1,c2'],
    ['_\n', '_'],
    ['unconfined\n', 'unconfined'],
    ['docker-default (enforce)\n', 'docker-default'],
    ['/usr/bin/a b (kill)\n', '/usr/bin/a b'],
    // A profile that is called as if it were enforced.
    ['docker-default (enforce) (complain)\n', undefined],
    ['docker-default (complain)\n', undefined],
    ['a//&b (mixed)\n', undefined],
    ['\n', undefined],
    ['', undefined],
  ] as const) {
    const fact = labelFrom(text)
    assert.equal('is' in fact ? fact.is : undefined, label, JSON.stringify(text))
  }
})
