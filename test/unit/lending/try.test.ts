import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SECTION_RULES } from '../../../src/ebpf/object/section-names.ts'
import { type ObjectProgram, parseObject } from '../../../src/ebpf/object/spec.ts'
import { ConflictError } from '../../../src/errors.ts'
import { planTrial } from '../../../src/lending/try.ts'
import { PROGRAM_CLASSES } from '../../../src/policy/kernel-classes.ts'

const fixture = (name: string) =>
  parseObject(readFileSync(join(__dirname, `../../fixtures/${name}.bpf.o`)), { name })
const network = fixture('network')
const trace = fixture('trace')
const autoload = network.programs.filter(program => program.autoload)
const own = { wishes: [], ownNetwork: true, cgroup: '/cgroup' }

test('each program goes to what is its own: loopback and cgroup', () => {
  const { places, idle } = planTrial(network, autoload, own)
  assert.deepEqual(places, [
    { program: 'count', spec: { kind: 'xdp', device: 'lo' } },
    { program: 'ingress', spec: { kind: 'tcx', device: 'lo', direction: 'ingress' } },
    { program: 'egress', spec: { kind: 'cgroup', path: '/cgroup' } },
  ])
  // Others jump to it: a device takes one.
  assert.deepEqual(
    idle.map(({ program, why }) => [program, why]),
    [['tail', 'other programs jump to it']],
  )
})

test('nothing of the host is taken unasked', () => {
  const { places, idle } = planTrial(network, autoload, { wishes: [], ownNetwork: false, cgroup: undefined })
  assert.deepEqual(places, [])
  assert.deepEqual(idle.map(({ program }) => program).sort(), autoload.map(({ name }) => name).sort())
})

/** A program for each pattern of the table of sections. */
const everyKind = SECTION_RULES.map((rule, i): ObjectProgram => {
  const section = rule.pattern.replace(/\+$/, '/x')
  return { name: `p${i}`, section, rule, target: 'x', autoload: true, function: 0 }
})

test('what reaches a network is not attached to that of the host unasked, and is to its own', () => {
  const reaching = everyKind.filter(({ rule }) => PROGRAM_CLASSES[rule!.type]?.reach === 'network')
  const types = new Set(reaching.map(({ rule }) => rule!.type))
  for (const type of ['xdp', 'sched_cls', 'flow_dissector', 'sk_lookup', 'netfilter', 'lwt_in'] as const)
    assert.ok(types.has(type), type)
  const attachable = new Set<string>()
  for (const program of reaching) {
    const alone = [program]
    const onHost = planTrial(network, alone, { ...own, ownNetwork: false })
    assert.deepEqual(onHost.places, [], program.section)
    assert.equal(onHost.idle.length, 1)
    if (planTrial(network, alone, own).places.length > 0) attachable.add(program.rule!.type)
  }
  assert.deepEqual([...attachable].sort(), ['flow_dissector', 'sched_cls', 'sk_lookup', 'xdp'])
  // Whatever else is attached goes to no network.
  for (const program of everyKind.filter(one => !reaching.includes(one)))
    for (const { spec } of planTrial(network, [program], { ...own, ownNetwork: false }).places)
      assert.ok(spec === undefined || spec.kind === 'cgroup', program.section)
})

test('a network namespace of the host is taken where it is named', () => {
  const wish = { spec: { kind: 'netns', path: '/proc/self/ns/net' } } as const
  const places = { ...own, ownNetwork: false, wishes: [wish] }
  const lookups = everyKind.filter(({ rule }) => rule!.type === 'sk_lookup')
  assert.deepEqual(
    planTrial(network, lookups, places).places,
    lookups.map(({ name }) => ({ program: name, spec: wish.spec })),
  )
})

test('wishes stand instead of what suits', () => {
  const wish = { program: 'count', spec: { kind: 'xdp', device: 'eth0' } } as const
  const { places, idle } = planTrial(network, autoload, { ...own, wishes: [wish] })
  assert.deepEqual(places, [wish])
  assert.equal(idle.length, autoload.length - 1)
})

test('two programs for one device are refused, and one of them is not', () => {
  const spec = { kind: 'xdp', device: 'eth0' } as const
  assert.throws(() => planTrial(network, autoload, { ...own, wishes: [{ spec }] }), ConflictError)
  const { places } = planTrial(network, autoload, { ...own, wishes: [{ program: 'tail', spec }] })
  assert.deepEqual(places, [{ program: 'tail', spec }])
})

test('what perf_event_open attaches needs the host; what bpf(2) attaches does not', () => {
  const { places, idle } = planTrial(trace, trace.programs, own)
  const attached = places.map(({ program }) => program)
  const hosted = idle.filter(({ needsHost }) => needsHost).map(({ program }) => program)
  for (const name of ['on_kprobe', 'on_ksyscall', 'on_tracepoint']) assert.ok(hosted.includes(name), name)
  for (const name of ['on_kprobe_multi', 'on_raw_tp', 'on_fentry']) assert.ok(attached.includes(name), name)
})
