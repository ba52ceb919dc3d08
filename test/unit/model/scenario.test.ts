/** What is wrong with a scenario is told with its line; `because` counts. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PolicyError } from '../../../src/errors.ts'
import { parseScenario } from '../../../src/model/scenario/parse.ts'
import { playScenario } from '../../../src/model/scenario/play.ts'

const HEAD = `apiVersion: bpftoken.dev/v1
kind: Scenario
metadata: { name: test }
spec:
  tasks:
    root: { userNamespace: init }
    user: { userNamespace: init, uid: 1000, capabilities: [] }
  story:
`

const play = (story: string) => playScenario(parseScenario('test', HEAD + story))

test('what a task may not is refused, and what another one may goes through', () => {
  const [refused, allowed] = play(`    - { as: user, do: map, type: array, expect: EPERM, because: CAP_BPF }
    - { as: root, do: map, type: array, expect: ok }
`)
  assert.deepEqual([refused!.outcome, refused!.met], ['EPERM', true])
  assert.deepEqual([allowed!.outcome, allowed!.met], ['ok', true])
  assert.match(refused!.why, /needs CAP_BPF in the initial user namespace/)
  assert.equal(refused!.checks.at(-1)!.rule.source, 'map_create')
})

test('words that the reason has not are an expectation that is not met', () => {
  const [step] = play('    - { as: user, do: map, type: array, expect: EPERM, because: the moon }\n')
  assert.equal(step!.met, false)
})

for (const [what, story, line] of [
  ['an unknown field', '    - { as: root, do: map, kind: array }\n', 9],
  ['an unknown verb', '    - { as: root, do: fly }\n', 9],
  ['a task that is not there', '    - { as: nobody, do: map, type: array }\n', 9],
  ['a map type that this kernel has not', '    - { as: root, do: map, type: cube }\n', 9],
  ['a token that was not made', '    - { as: root, do: map, type: array, token: t }\n', 9],
] as const)
  test(`${what} is told with its line`, () => {
    assert.throws(
      () => play(story),
      (error: unknown) => error instanceof PolicyError && error.issues[0]?.line === line,
    )
  })
