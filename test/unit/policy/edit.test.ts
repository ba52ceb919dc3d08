/** editedText(): one change, and every other byte as it was. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { comparePolicies } from '../../../src/policy/diff.ts'
import { editedText, grants, type PolicyEdit } from '../../../src/policy/edit.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import { VOCABULARY } from './sample-kernel.ts'

const HEAD = 'apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: t } # a name\nspec:\n'
const hash: PolicyEdit = { path: 'spec.rights.maps', value: 'hash' }

/** The lines that are only in one of both. */
function lines(before: string, after: string): { gone: string[]; come: string[] } {
  const [a, b] = [before.split('\n'), after.split('\n')]
  return { gone: a.filter(line => !b.includes(line)), come: b.filter(line => !a.includes(line)) }
}

const ROWS: readonly [what: string, spec: string, edit: PolicyEdit, gone: string[], come: string[]][] = [
  [
    'a flow list',
    '  rights:\n    cmds: [map_create]\n    maps: [array]   # two\n',
    hash,
    ['    maps: [array]   # two'],
    ['    maps: [array, hash]   # two'],
  ],
  ['an empty list', '  rights:\n    maps: []\n', hash, ['    maps: []'], ['    maps: [hash]']],
  [
    'a flow list over several lines',
    '  rights:\n    maps: [\n      array, # first\n      ringbuf # last\n    ]\n',
    hash,
    ['      ringbuf # last'],
    ['      ringbuf, hash # last'],
  ],
  [
    'a block list with comments',
    '  rights:\n    maps:\n      # of the counter\n      - array # why\n    # end of maps\n    cmds: [map_create]\n',
    hash,
    [],
    ['      - hash'],
  ],
  ['a block list without indentation', '  rights:\n    maps:\n    - array\n', hash, [], ['    - hash']],
  [
    'no such list',
    '  rights:\n    cmds: [map_create] # one\n\n  # the network\n  network: own\n',
    hash,
    [],
    ['    maps: [hash]'],
  ],
  [
    'no such list in a flow map',
    '  rights: { cmds: [map_create] } # r\n',
    hash,
    ['  rights: { cmds: [map_create] } # r'],
    ['  rights: { cmds: [map_create], maps: [hash] } # r'],
  ],
  ['an empty flow map', '  rights: {}\n', hash, ['  rights: {}'], ['  rights: { maps: [hash] }']],
  [
    'a list that has something by default',
    '  rights:\n    cmds: [map_create]\n',
    { path: 'spec.rights.capabilities', value: 'net_admin' },
    [],
    ['    capabilities: [bpf, net_admin]'],
  ],
  [
    'a value',
    '  rights: { cmds: [map_create] }\n  limits:\n    maps: 4 # few\n    tokens: 1\n',
    { path: 'spec.limits.maps', value: 5 },
    ['    maps: 4 # few'],
    ['    maps: 5 # few'],
  ],
  [
    'a value that is not there, nor what it is in',
    '  rights: { cmds: [map_create] }\n  mode: permissive # for now\n# the end\n',
    { path: 'spec.sharing.bindMount', value: true },
    [],
    ['  sharing: { bindMount: true }'],
  ],
  [
    'a value beside a description of several lines',
    '  rights:\n    cmds: [map_create]\n',
    { path: 'spec.network', value: 'host' },
    [],
    ['  network: host'],
  ],
]

for (const [what, spec, edit, gone, come] of ROWS)
  test(`editedText() with ${what}`, () => {
    for (const text of [HEAD + spec, (HEAD + spec).trimEnd()]) {
      const after = editedText(text, edit)!
      assert.deepEqual(lines(text, after), { gone, come })
      const parse = (one: string) => parsePolicy(one, { source: 't', vocabulary: VOCABULARY })
      const { differences } = comparePolicies(parse(text), parse(after), VOCABULARY)
      assert.deepEqual(
        differences.map(one => [one.path, one.grants]),
        [[edit.path, 'more']],
      )
      assert.deepEqual(
        [text, after].map(one => grants(parse(one), edit, VOCABULARY)),
        [false, true],
      )
      const dos = editedText(text.replaceAll('\n', '\r\n'), edit)
      assert.equal(dos, after.replaceAll('\n', '\r\n'), 'line ends of DOS stay')
    }
  })

test('editedText() gives up where a list is somewhere else, or is none', () => {
  for (const spec of [
    '  rights: &r\n    maps: *m\n',
    '  rights: *r\n',
    '  rights: [a]\n',
    '  rights:\n    maps: x\n',
  ])
    assert.equal(editedText(HEAD + spec, hash), undefined)
  assert.equal(editedText('', hash), undefined)
  assert.equal(editedText('- a\n', hash), undefined)
})

test('editedText() adds a word to any list, and all before and after it stays', () => {
  const word = fc.constantFrom('array', 'percpu_hash', 'lru_hash', 'ringbuf')
  const comment = fc.constantFrom('', ' # why', '   #x')
  const block = fc
    .tuple(fc.array(fc.tuple(word, comment), { minLength: 1, maxLength: 4 }), fc.constantFrom(4, 6, 8))
    .map(
      ([items, indent]) =>
        `\n${items.map(([one, more]) => `${' '.repeat(indent)}- ${one}${more}`).join('\n')}`,
    )
  const flow = fc
    .tuple(fc.array(word, { maxLength: 4 }), fc.constantFrom(', ', ',', ' , '), comment)
    .map(([items, comma, more]) => ` [${items.join(comma)}]${more}`)
  const rest = fc.constantFrom('', '\n    progs: [xdp] # p', '\n  # after\n  network: own')
  fc.assert(
    fc.property(fc.oneof(block, flow), rest, fc.boolean(), (list, more, ends) => {
      const text = `${HEAD}  rights:\n    cmds: [map_create]\n    maps:${list}${more}${ends ? '\n' : ''}`
      const after = editedText(text, hash)!
      let start = 0
      while (text[start] === after[start] && start < text.length) start++
      const kept = text.length - start
      assert.equal(after.slice(after.length - kept), text.slice(start))
      assert.match(after.slice(start, after.length - kept), /^[-,\s]*hash[-,\s]*$/)
      const parse = (one: string) => parsePolicy(one, { source: 't', vocabulary: VOCABULARY })
      assert.equal(comparePolicies(parse(text), parse(after), VOCABULARY).differences.length, 1)
    }),
  )
})
