/** Seccomp profiles: what one lets through, and that ours widens nothing else. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { FormatError } from '../../../src/errors.ts'
import { planRights, type RightsPlan } from '../../../src/needs/plan.ts'
import { allowing, letsThrough, neededCalls, parseSeccompProfile } from '../../../src/needs/seccomp.ts'
import type { Capability } from '../../../src/policy/policy.ts'
import { CACHE } from '../../helpers/machine.ts'

const ALLOW = 'SCMP_ACT_ALLOW'
const ERRNO = 'SCMP_ACT_ERRNO'
/** As Podman 4's: two rules, of which a container gets the one that its capabilities say. */
const OLD = {
  defaultAction: ERRNO,
  architectures: ['SCMP_ARCH_X86_64'],
  flags: ['x'],
  syscalls: [
    { names: ['read'], action: ALLOW, args: [] },
    { names: ['bpf', 'setns'], action: ALLOW, args: [], includes: { caps: ['CAP_SYS_ADMIN'] }, excludes: {} },
    {
      names: ['bpf', 'perf_event_open', 'setns'],
      action: ERRNO,
      errnoRet: 1,
      includes: {},
      excludes: { caps: ['CAP_SYS_ADMIN'] },
    },
  ],
}
const NEW = {
  ...OLD,
  syscalls: [...OLD.syscalls.slice(0, 2), { names: ['bpf'], action: ALLOW, includes: { caps: ['CAP_BPF'] } }],
}
const profile = (value: unknown) => parseSeccompProfile(JSON.stringify(value))
const lets = (value: unknown, ...capabilities: Capability[]) =>
  letsThrough(profile(value), 'bpf', capabilities)

describe('letsThrough()', () => {
  test('goes by the capabilities that rules include and exclude', () => {
    assert.equal(lets(OLD, 'bpf'), false)
    assert.equal(lets(OLD, 'bpf', 'sys_admin'), true)
    assert.equal(lets(NEW, 'bpf'), true)
    assert.equal(lets(NEW, 'net_admin'), false)
  })

  test('takes what is not mentioned by the default action, and a refusal before an allowance', () => {
    assert.equal(lets({ ...OLD, syscalls: [] }, 'bpf'), false)
    assert.equal(lets({ ...OLD, defaultAction: ALLOW, syscalls: [] }, 'bpf'), true)
    assert.equal(lets({ ...OLD, defaultAction: ALLOW }, 'bpf'), false)
    const both = [...NEW.syscalls, { names: ['bpf'], action: ERRNO }]
    assert.equal(lets({ ...NEW, syscalls: both }, 'bpf'), false)
  })

  test('a rule for some arguments, kernels or architectures allows nothing for sure', () => {
    const one = (more: object) => lets({ ...OLD, syscalls: [{ names: ['bpf'], action: ALLOW, ...more }] })
    assert.equal(one({}), true)
    assert.equal(one({ args: [{ index: 0, value: 1, op: 'SCMP_CMP_EQ' }] }), false)
    assert.equal(one({ includes: { minKernel: '9.0' } }), false)
    assert.equal(one({ includes: { arches: ['arm64'] } }), false)
    assert.equal(one({ excludes: { arches: ['arm64'] } }), false)
  })
})

describe('allowing()', () => {
  test('allows the call without a condition, and takes it out of what is refused', () => {
    const made = allowing(profile(OLD), ['bpf'])
    assert.equal(letsThrough(made, 'bpf', []), true)
    assert.deepEqual(made.syscalls.slice(0, 2), OLD.syscalls.slice(0, 2))
    assert.deepEqual(made.syscalls[2], { ...OLD.syscalls[2], names: ['perf_event_open', 'setns'] })
    assert.deepEqual(made.syscalls[3], {
      ...{
        names: ['bpf'],
        action: ALLOW,
        args: [],
        comment: 'added by bpftoken',
        includes: {},
        excludes: {},
      },
    })
    assert.equal(made.syscalls.length, 4)
  })

  test('widens nothing else, and keeps what it does not know', () => {
    const made = allowing(profile(OLD), ['bpf'])
    assert.deepEqual({ ...made, syscalls: 0 }, { ...OLD, syscalls: 0 })
    for (const call of ['setns', 'perf_event_open', 'mount'])
      assert.equal(letsThrough(made, call, ['bpf', 'net_admin', 'perfmon']), false, call)
  })

  test('of a profile that allows by default it takes refusals away only', () => {
    const loose = { ...OLD, defaultAction: ALLOW, syscalls: [{ names: ['bpf'], action: ERRNO }] }
    assert.deepEqual(allowing(profile(loose), ['bpf']).syscalls, [])
  })

  const podmans = join(CACHE, 'podman/usr/share/containers/seccomp.json')
  const missing = existsSync(podmans) ? {} : { skip: '.cache/podman is missing: run scripts/fetch-debs.sh' }
  test("Podman 4's own profile, call by call: bpf(2) and no other", missing, () => {
    const base = parseSeccompProfile(readFileSync(podmans, 'utf8'))
    const made = allowing(base, ['bpf'])
    const calls = new Set([...base.syscalls, ...made.syscalls].flatMap(({ names }) => names))
    const changed = [...calls].filter(
      call => letsThrough(base, call, ['bpf']) !== letsThrough(made, call, ['bpf']),
    )
    assert.ok(calls.size > 300)
    assert.deepEqual(changed, ['bpf'])
  })
})

test('parseSeccompProfile() refuses what is no profile', () => {
  for (const value of ['{', '[]', '{}', '{"defaultAction":"x"}', '{"defaultAction":"x","syscalls":[{}]}'])
    assert.throws(() => parseSeccompProfile(value), FormatError, value)
  for (const names of ['bpf', [1]])
    assert.throws(() => profile({ ...OLD, syscalls: [{ names, action: ALLOW }] }), FormatError)
})

test('neededCalls(): perf_event_open(2) only for what attaches or reads by perf events', () => {
  const empty = planRights([], { loader: 'libbpf' })
  const calls = (...rights: [RightsPlan['rights'][number]['domain'], string, boolean?][]): string[] =>
    neededCalls({
      ...empty,
      rights: rights.map(([domain, word, forLoader = false]) => ({
        ...{ domain, word, bit: 0, by: [], forLoader, certain: true },
      })),
    })
  assert.deepEqual(calls(['progs', 'xdp'], ['attachs', 'xdp']), ['bpf'])
  assert.deepEqual(calls(['progs', 'kprobe'], ['attachs', 'trace_kprobe_multi']), ['bpf'])
  assert.deepEqual(calls(['progs', 'tracepoint', true], ['attachs', 'cgroup_inet_ingress', true]), ['bpf'])
  const both = ['bpf', 'perf_event_open']
  assert.deepEqual(calls(['progs', 'kprobe'], ['attachs', 'cgroup_inet_ingress']), both)
  assert.deepEqual(calls(['progs', 'tracepoint']), both)
  assert.deepEqual(calls(['maps', 'perf_event_array']), both)
})

test('a profile that is nested too deeply is none', () => {
  const nested = (levels: number) =>
    `{"defaultAction":"${ERRNO}","syscalls":[],"x":${'['.repeat(levels)}${']'.repeat(levels)}}`
  const shallow = parseSeccompProfile(nested(50))
  assert.equal(JSON.parse(JSON.stringify(allowing(shallow, ['bpf']))).defaultAction, ERRNO)
  for (const levels of [100, 200_000])
    assert.throws(() => parseSeccompProfile(nested(levels)), /nested too deeply/)
})
