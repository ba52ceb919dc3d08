import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exactText, parseWish, placementText } from '../../../src/cli/attachments.ts'
import type { AttachSpec } from '../../../src/ebpf/attach/section.ts'
import { UsageError } from '../../../src/errors.ts'

const SPECS: readonly (AttachSpec | undefined)[] = [
  undefined,
  { kind: 'xdp', device: 'lo' },
  { kind: 'xdp', device: 'a=b', mode: 'skb' },
  { kind: 'tcx', device: 'lo', direction: 'egress' },
  { kind: 'cgroup', path: '/sys/fs/cgroup/a=b/["c"]\n' },
  { kind: 'netns', path: '/proc/self/ns/net' },
]

const PLAIN = ['count', 'count.llvm.1', 'a$b']

const HOSTILE = [
  'p=tcx:lo/ingress/',
  'p=auto',
  'p=xdp:lo\n',
  '=',
  '',
  '["p","auto"]',
  '["p"]=',
  'xdp:lo',
  '--attach=auto',
  'p q',
  '\u202e',
]

test('a placement reads back as itself, whatever the program is called', () => {
  for (const program of [...PLAIN, ...HOSTILE])
    for (const spec of SPECS)
      for (const text of [placementText({ program, spec }), exactText({ program, spec })])
        assert.deepEqual(parseWish(text), { program, spec: spec ?? 'auto' }, text)
})

test('the short form is told where it says the same', () => {
  for (const program of PLAIN) assert.equal(placementText({ program, spec: undefined }), `${program}=auto`)
  assert.equal(placementText({ program: 'p=auto', spec: undefined }), '["p=auto","auto"]')
})

test('what is neither form is refused', () => {
  for (const text of [
    ...['[', '[]', '["p"]', '["p",1]', '[1,"auto"]', '["p","auto",1]', '["p","nowhere"]', '["p","auto"'],
    ...['p=tcx:lo/ingress/=xdp:lo', 'p q=xdp:lo', '=xdp:lo', 'p=', 'p==auto'],
  ])
    assert.throws(() => parseWish(text), UsageError, text)
})
