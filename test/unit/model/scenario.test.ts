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
  ['an option called __proto__', '    - { as: root, do: mount, mount: m, options: { __proto__: x } }\n', 9],
  ['a token that was not made', '    - { as: root, do: map, type: array, token: t }\n', 9],
  ['a field of another verb', '    - { as: root, do: fsopen, context: c, type: array }\n', 9],
  ['a hook that no call asks', '    - { as: root, do: fsopen, context: c, lsm: { bpf: EPERM } }\n', 9],
  ['a time that is none', '    - { do: wait, for: 99999999999999999999h }\n', 9],
] as const)
  test(`${what} is told with its line`, () => {
    assert.throws(
      () => play(story),
      (error: unknown) => error instanceof PolicyError && error.issues[0]?.line === line,
    )
  })

test('an option with another unknown name is taken, and bpffs ignores it', () => {
  const [step] = play('    - { as: root, do: mount, mount: m, options: { prototype: x } }\n')
  assert.equal(step!.outcome, 'ok')
})

test('what an earlier step did not come to is missing, and the story goes on', () => {
  const story = `    - { as: user, do: mount, mount: m, options: {}, expect: EPERM }
    - { as: root, do: token, mount: m, token: t }
    - { as: root, do: map, type: array, token: t }
    - { as: root, do: map, type: array, expect: ok }
`
  const [, token, used, after] = play(story)
  assert.deepEqual([token!.outcome, used!.outcome, after!.outcome], ['ENOENT', 'EBADF', 'ok'])
  assert.match(used!.why, /there is no token "t"/)
})

test('nobody gives away or reopens a token of another task', () => {
  const story = (as: string): string => `apiVersion: bpftoken.dev/v1
kind: Scenario
metadata: { name: test }
spec:
  userNamespaces: { box: {} }
  tasks:
    root: {}
    app: { userNamespace: box, uid: 1000, capabilities: [bpf, sys_admin] }
    thief: { uid: 1001, capabilities: [] }
  story:
    - { as: app, do: fsopen, context: c }
    - { as: root, do: set, context: c, key: delegate_cmds, value: any }
    - { as: root, do: create, context: c }
    - { as: app, do: fsmount, context: c, mount: m }
    - { as: app, do: token, mount: m, token: t, expect: ok }
    - { as: ${as}, do: pass, token: t, to: thief }
    - { as: ${as}, do: reopen, token: t }
`
  const outcomes = (as: string): string[] =>
    playScenario(parseScenario('test', story(as)))
      .slice(5)
      .map(({ outcome }) => outcome)
  assert.deepEqual(outcomes('thief'), ['EBADF', 'EBADF'])
  assert.deepEqual(outcomes('app'), ['ok', 'ok'])
})

test('who binds or moves a mount needs CAP_SYS_ADMIN over the mount namespace', () => {
  for (const verb of ['bind', 'move']) {
    const story = (as: string): string =>
      `    - { as: root, do: mount, mount: m, options: {} }\n    - { as: ${as}, do: ${verb}, mount: m, to: n }\n`
    assert.equal(play(story('user'))[1]!.outcome, 'EPERM')
    assert.equal(play(story('root'))[1]!.outcome, 'ok')
  }
})

for (const [what, text, path] of [
  [
    'a circle of namespaces that nobody is in',
    'userNamespaces: { a: { parent: b }, b: { parent: a } }',
    /userNamespaces/,
  ],
  ['a namespace that is called init', 'userNamespaces: { init: {} }', /userNamespaces/],
  [
    'a policy that is not valid',
    'policies: { p: { rights: { maps: [cube] } } }',
    /policies\.p\.rights\.maps\[0\]/,
  ],
] as const)
  test(`${what} is told with its place in the scenario`, () => {
    const scenario = HEAD.replace('  tasks:', `  ${text}\n  tasks:`)
    assert.throws(
      () =>
        playScenario(parseScenario('story.yaml', `${scenario}    - { as: root, do: map, type: array }\n`)),
      (error: unknown) => {
        assert.ok(error instanceof PolicyError)
        const [issue] = error.issues
        assert.match(issue!.path, path)
        assert.equal(issue!.line, 5)
        assert.match(error.message, /story\.yaml/)
        return true
      },
    )
  })

test('a task is not confined where nothing confines', () => {
  const confined = HEAD.replace(
    'uid: 1000, capabilities: []',
    'uid: 1000, capabilities: [], confined: p',
  ).replace('  tasks:', '  policies: { p: { rights: { maps: [array] } } }\n  tasks:')
  assert.throws(
    () => playScenario(parseScenario('story.yaml', `${confined}    - { as: root, do: map, type: array }\n`)),
    /only a guard confines/,
  )
})

const GUARDED = `apiVersion: bpftoken.dev/v1
kind: Scenario
metadata: { name: test }
spec:
  userNamespaces:
    box: {}
  tasks:
    daemon: {}
    app: { userNamespace: box, cgroup: /apps/one }
  policies:
    p:
      rights: { cmds: [map_create, prog_load], maps: [array], progs: [cgroup_device], attachs: [cgroup_device], capabilities: [bpf, net_admin] }
      limits: { maps: 1, lifetime: 1h }
      mode: MODE
  guard:
    delegators:
      daemon: {}
  story:
    - { as: app, do: fsopen, context: c }
    - { as: daemon, do: set, context: c, key: delegate }
    - { as: daemon, do: set, context: c, key: abilities, value: p }
    - { as: daemon, do: set, context: c, key: delegate_cmds, value: "map_create:prog_load" }
    - { as: daemon, do: set, context: c, key: delegate_maps, value: array }
    - { as: daemon, do: set, context: c, key: delegate_progs, value: cgroup_device }
    - { as: daemon, do: set, context: c, key: delegate_attachs, value: cgroup_device }
    - { as: daemon, do: create, context: c }
    - { as: app, do: fsmount, context: c, mount: m }
    - { as: app, do: token, mount: m, token: t }
`
const guarded = (mode: string, story: string) =>
  playScenario(parseScenario('test', GUARDED.replace('MODE', mode) + story)).slice(10)

const MAPS = `    - { as: app, do: map, type: array, token: t }
    - { as: app, do: map, type: array, token: t }
`

test('a permissive policy lets through, and the step says what would have been refused', () => {
  const [first, second] = guarded('permissive', MAPS)
  assert.deepEqual([first!.outcome, first!.watched], ['ok', []])
  assert.equal(second!.outcome, 'ok')
  assert.match(second!.why, /^the guard would refuse at map_create: maps/)
  assert.equal(guarded('enforce', MAPS)[1]!.outcome, 'EDQUOT')
})

test('what is renewed in time goes on, and what has expired is not renewed', () => {
  const [, , late, , again] = guarded(
    'enforce',
    `    - { do: renew, as: daemon, mount: m, for: 3h, expect: ok }
    - { do: wait, for: 2h }
    - { as: app, do: token, mount: m, token: u, expect: ok }
    - { do: wait, for: 2h }
    - { do: renew, as: daemon, mount: m, for: 3h, expect: refused, because: expired }
`,
  )
  assert.deepEqual([late!.met, again!.met], [true, true])
})

test('a program is attached to the own cgroup, and not to another', () => {
  const [, own, below, other] = guarded(
    'enforce',
    `    - { as: app, do: prog, type: cgroup_device, attach: cgroup_device, token: t, prog: x }
    - { as: app, do: attach, prog: x, attach: cgroup_device }
    - { as: app, do: attach, prog: x, attach: cgroup_device, cgroup: /apps/one/below }
    - { as: app, do: attach, prog: x, attach: cgroup_device, cgroup: /apps/two }
`,
  )
  assert.deepEqual([own!.outcome, below!.outcome, other!.outcome], ['ok', 'ok', 'EACCES'])
  assert.match(other!.why, /attach: cgroup/)
})
