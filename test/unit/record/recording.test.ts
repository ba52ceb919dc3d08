/** What calls come to: rights, what is left out, what no token serves, and a policy of it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { headerVocabulary } from '../../../src/needs/header-words.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import type { SeenCall } from '../../../src/record/call.ts'
import { recordingOf } from '../../../src/record/recording.ts'
import { Seen } from '../../../src/record/seen.ts'
import { recordingText } from '../../../src/record/text.ts'

const NOTHING_LOST = { counted: new Map<string, number>(), lostCalls: 0, lostProcesses: 0 }

function call(of: Partial<SeenCall>): SeenCall {
  return {
    ...{ at: 5n, pid: 7, tid: 7, innerPid: 7, uid: 0, userNamespace: 1, cgroup: 1n, task: 'loader' },
    ...{
      command: 'map_create',
      result: 3,
      errno: undefined,
      reached: true,
      compat: false,
      held: false,
      withToken: false,
      objectFlags: 0,
    },
    ...{ need: undefined, attachType: undefined, descriptors: undefined, fileFlags: 0, name: '' },
    ...of,
  }
}
const map = (mapType: number, more: Partial<SeenCall> = {}): SeenCall =>
  call({ need: { cmd: 'map_create', mapType }, ...more })

function recorded(calls: SeenCall[], tally: Parameters<typeof recordingOf>[1] = NOTHING_LOST) {
  const seen = new Seen()
  for (const one of calls) seen.add(one)
  return recordingOf(seen.calls, tally, seen.dropped)
}
const words = (of: readonly { domain: string; word: string }[]) => of.map(one => `${one.domain} ${one.word}`)
const textOf = (recording: ReturnType<typeof recorded>, what = 'loader', hasTokens = true) =>
  recordingText(recording, { what, name: 'loader', hasTokens, dateOf: at => new Date(Number(at)) }).join('\n')

test('rights are those of the calls, equal calls once, with who asked and how it ended', () => {
  const { rights, masks, complete } = recorded([
    map(1, { name: 'a' }),
    map(1, { name: 'a', at: 3n }),
    map(1, { name: 'b', errno: 'EPERM', result: -1 }),
    map(2, { pid: 8 }),
  ])
  assert.deepEqual(words(rights), ['cmds map_create', 'maps hash', 'maps array'])
  const [, hash] = rights
  assert.deepEqual(
    hash!.askers.map(({ pid, task, outcomes, names }) => ({ pid, task, outcomes, names })),
    [{ pid: 7, task: 'loader', outcomes: { ok: 2, EPERM: 1 }, names: ['a', 'b'] }],
  )
  assert.deepEqual(masks, { cmds: 1n, maps: 6n, progs: 0n, attachs: 0n })
  assert.equal(complete, true)
})

test('as many names as are kept are told once each, in order', { timeout: 60_000 }, () => {
  const names = Array.from({ length: 49_000 }, (_, i) => `n${i}`)
  const twice = names.slice(0, 500).map(name => map(1, { name, errno: 'EPERM', result: -1 }))
  const { rights, capabilities, complete } = recorded([...names.map(name => map(1, { name })), ...twice])
  for (const { askers } of [...rights, ...capabilities]) {
    assert.equal(askers.length, 1)
    assert.deepEqual(askers[0]!.names, names)
    assert.deepEqual(askers[0]!.outcomes, { ok: 49_000, EPERM: 500 })
  }
  assert.equal(complete, true)
})

test('what a malformed request asks for is left out, and what it asks for in vain is not', () => {
  const { rights, leftOut, capabilities } = recorded([
    map(15, { errno: 'EINVAL', result: -22 }),
    map(200),
    map(1, { errno: 'EPERM', result: -1 }),
  ])
  assert.deepEqual(words(rights), ['cmds map_create', 'maps hash'])
  // Type 200 fits no mask.
  assert.deepEqual(words(leftOut), ['maps sockmap', 'maps 200'])
  assert.deepEqual(
    capabilities.map(({ name }) => name),
    ['bpf'],
  )
})

test('capabilities are those of the types, and that of attaching cgroup_skb', () => {
  const load = call({ command: 'prog_load', need: { cmd: 'prog_load', progType: 8, attachType: 1 } })
  assert.deepEqual(
    recorded([load]).capabilities.map(({ name }) => name),
    ['bpf'],
  )
  const link = call({ command: 'link_create', attachType: 'cgroup_inet_egress' })
  assert.deepEqual(
    recorded([load, link]).capabilities.map(({ name }) => name),
    ['bpf', 'net_admin'],
  )
})

test('what no token serves is told with its reason, once for each kind of call', () => {
  const { unserved, rights } = recorded([
    call({ command: 'prog_get_fd_by_id', errno: 'EPERM', result: -1 }),
    call({ command: 'perf_event_open' }),
    call({ command: 'link_create', attachType: 'perf_event' }),
    call({ command: 'raw_tracepoint_open', name: 'sys_enter' }),
    call({ command: 'link_create', attachType: 'xdp' }),
  ])
  assert.deepEqual(
    unserved.map(one => [one.call, one.fails]),
    [
      ['prog_get_fd_by_id', true],
      ['perf_event_open', true],
      ['link_create perf_event', true],
      ['raw_tracepoint_open', false],
    ],
  )
  assert.deepEqual(rights, [])
})

test('what was lost makes it incomplete, in the policy, too; else nothing says so', () => {
  assert.doesNotMatch(textOf(recorded([map(1)])), /INCOMPLETE/)
  const lost = recorded([map(1)], { ...NOTHING_LOST, lostCalls: 2 })
  assert.equal(lost.complete, false)
  assert.match(textOf(lost), /^# INCOMPLETE: 2 calls and 0 processes were not seen/m)
  assert.equal(recorded([map(1)], { ...NOTHING_LOST, lostProcesses: 1 }).complete, false)
})

test('the policy reads back as the masks and capabilities, whatever names are in it', () => {
  const hostile = 'x\ny: "z" # \u2028 \u001b[0m'
  const recording = recorded([
    map(27, { name: hostile, task: hostile }),
    call({ command: 'prog_load', need: { cmd: 'prog_load', progType: 6, attachType: 37 }, name: hostile }),
    map(50),
  ])
  const text = textOf(recording, hostile)
  for (const char of ['\u2028', '\u001b']) assert.ok(!text.includes(char))
  const policy = parsePolicy(text, { source: 'policy.yaml', vocabulary: headerVocabulary() })
  assert.deepEqual(policy.rights.masks, recording.masks)
  assert.deepEqual(policy.rights.capabilities, ['bpf', 'net_admin'])
})

test('where the kernel has no tokens, the policy says so; else nothing does', () => {
  assert.match(textOf(recorded([map(1)]), 'loader', false), /^# Note: this kernel has no BPF tokens/m)
  assert.doesNotMatch(textOf(recorded([map(1)])), /no BPF tokens/)
})

test('processes of other PID namespaces have both numbers, and those without one here are told apart', () => {
  const text = textOf(
    recorded([
      map(1, { pid: 70, innerPid: 3 }),
      map(2, { pid: 0, innerPid: 4 }),
      map(2, { pid: 0, innerPid: 5 }),
    ]),
  )
  assert.match(text, /- hash # loader \(pid 70, inside 3\): 1 ok/)
  assert.match(
    text,
    /- array # loader \(pid unknown here, inside 4\): 1 ok[^;]*; loader \(pid unknown here, inside 5\)/,
  )
})

test('who has a token and does not name it is refused whatever is lent; who has none lacks the right', () => {
  const refused = { errno: 'EPERM', result: -1 }
  const token = call({ command: 'token_create' })
  const { rights, leftOut, withoutToken } = recorded([
    token,
    map(1, refused),
    map(2, { ...refused, withToken: true }),
    map(9, { ...refused, pid: 8 }),
    call({ command: 'token_create', errno: 'ENOENT', result: -2, pid: 9 }),
    map(22, { ...refused, pid: 9 }),
  ])
  assert.deepEqual(words(rights), ['cmds map_create', 'maps array', 'maps lru_hash', 'maps queue'])
  assert.deepEqual(words(leftOut), ['maps hash'])
  // Of this one no attempt was seen.
  assert.deepEqual(
    withoutToken.map(({ pid }) => pid),
    [8],
  )
  assert.match(textOf(recorded([map(1)])), /^# Note: no attempt at a token was seen of loader \(pid 7\)/m)
})
