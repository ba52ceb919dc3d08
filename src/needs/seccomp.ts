/**
 * The seccomp profile of a container runtime, in the form that Docker gave it and Podman and
 * Kubernetes took over: what it lets through, and the same with what a plan needs beside. Pure.
 *
 * Nothing else of a profile is changed: parts that are not known here are kept as they are.
 */
import { FormatError } from '../errors.ts'
import type { Capability } from '../policy/policy.ts'
import type { RightsPlan } from './plan.ts'

type Json = Readonly<Record<string, unknown>>

export interface SeccompProfile extends Json {
  readonly defaultAction: string
  readonly syscalls: readonly SeccompRule[]
}

interface SeccompRule extends Json {
  readonly names: readonly string[]
  readonly action: string
}

const ALLOW = 'SCMP_ACT_ALLOW'

/** FormatError: it is no such profile. */
export function parseSeccompProfile(text: string): SeccompProfile {
  let profile: unknown
  try {
    profile = JSON.parse(text)
  } catch (cause) {
    throw new FormatError('seccomp profile', 'it is no JSON', { cause })
  }
  if (isDeeper(profile, MAX_DEPTH)) throw new FormatError('seccomp profile', 'it is nested too deeply')
  if (!isObject(profile) || typeof profile['defaultAction'] !== 'string')
    throw new FormatError('seccomp profile', 'it has no defaultAction')
  const { syscalls } = profile
  if (!Array.isArray(syscalls) || !syscalls.every(isRule))
    throw new FormatError('seccomp profile', 'its syscalls are no list of rules with names and an action')
  return profile as SeccompProfile
}

/** Those of runtimes have 5; what writes JSON calls itself for each. */
const MAX_DEPTH = 64

function isDeeper(value: unknown, depth: number): boolean {
  let level = [value]
  for (let at = 0; at <= depth; at++)
    level = level.flatMap(one =>
      typeof one === 'object' && one !== null ? (Object.values(one) as unknown[]) : [],
    )
  return level.length > 0
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isRule(value: unknown): value is SeccompRule {
  return (
    isObject(value) &&
    typeof value['action'] === 'string' &&
    Array.isArray(value['names']) &&
    value['names'].every(name => typeof name === 'string')
  )
}

/**
 * Whether a container with these capabilities may make the call, whatever its arguments. Fail
 * closed: a rule for some arguments, architectures or kernels only allows nothing.
 */
export function letsThrough(
  { defaultAction, syscalls }: SeccompProfile,
  call: string,
  capabilities: readonly Capability[],
): boolean {
  const held = capabilities.map(name => `CAP_${name.toUpperCase()}`)
  const rules = syscalls.filter(rule => rule.names.includes(call))
  const refused = rules.some(
    rule => rule.action !== ALLOW && !isExcluded(rule, held) && !lacksIncluded(rule, held),
  )
  const allowed = rules.some(
    rule =>
      rule.action === ALLOW &&
      isEmpty(rule['args']) &&
      !isExcluded(rule, held) &&
      !lacksIncluded(rule, held) &&
      hasOnlyCaps(rule['includes']) &&
      hasOnlyCaps(rule['excludes']),
  )
  return !refused && (allowed || defaultAction === ALLOW)
}

/** A rule is left out where any of its excluded capabilities is held. */
function isExcluded(rule: SeccompRule, held: readonly string[]): boolean {
  return capsOf(rule['excludes']).some(name => held.includes(name))
}

/** A rule is left out unless all its included capabilities are held. */
function lacksIncluded(rule: SeccompRule, held: readonly string[]): boolean {
  return capsOf(rule['includes']).some(name => !held.includes(name))
}

function capsOf(filter: unknown): readonly string[] {
  const caps = isObject(filter) ? filter['caps'] : undefined
  return Array.isArray(caps) ? caps.filter(name => typeof name === 'string') : []
}

function hasOnlyCaps(filter: unknown): boolean {
  return !isObject(filter) || Object.entries(filter).every(([key, value]) => key === 'caps' || isEmpty(value))
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || (Array.isArray(value) && value.length === 0)
}

/**
 * The profile with these calls allowed, on no condition. They are taken out of what is refused, for
 * of two rules for one call a runtime may take either.
 */
export function allowing(profile: SeccompProfile, calls: readonly string[]): SeccompProfile {
  const kept = profile.syscalls.flatMap(rule => {
    if (rule.action === ALLOW || !rule.names.some(name => calls.includes(name))) return [rule]
    const names = rule.names.filter(name => !calls.includes(name))
    return names.length === 0 ? [] : [{ ...rule, names }]
  })
  const rule = {
    names: [...calls],
    action: ALLOW,
    args: [],
    comment: 'added by bpftoken',
    includes: {},
    excludes: {},
  }
  return { ...profile, syscalls: profile.defaultAction === ALLOW ? kept : [...kept, rule] }
}

/**
 * What the plan's programs and their loaders call that default profiles know as dangerous: bpf(2);
 * perf_event_open(2) to attach by a perf event, or to read a perf event array.
 */
export function neededCalls({ rights }: RightsPlan): string[] {
  const own = (domain: string, ...words: string[]): boolean =>
    rights.some(right => !right.forLoader && right.domain === domain && words.includes(right.word))
  const byPerfEvent =
    own('progs', 'tracepoint', 'perf_event') ||
    // Other probes attach by links of their own, with attach types of their own.
    (own('progs', 'kprobe') && own('attachs', 'cgroup_inet_ingress')) ||
    own('maps', 'perf_event_array')
  return byPerfEvent ? ['bpf', 'perf_event_open'] : ['bpf']
}
