/**
 * The least rights that object files need, each with who asks for it. Pure.
 *
 * What an object asks for is src/needs/object.ts, what a loader asks for on top
 * src/needs/loader-probes.ts; here both become masks, capabilities and reasons. As a policy and in
 * other forms: src/needs/format/.
 */

import type { ObjectSpec } from '../ebpf/object/spec.ts'
import { printableName, quoted } from '../ebpf/printable.ts'
import { neededCapabilities, neededRights, type Right } from '../ebpf/rights.ts'
import { PROGRAM_CLASSES } from '../policy/kernel-classes.ts'
import { CAPABILITIES, type Capability } from '../policy/policy.ts'
import { MASK_DOMAINS, type MaskDomain, type Masks } from '../policy/vocabulary.ts'
import type { CapabilityName } from '../uapi/constants.ts'
import { type Loader, type LoaderNeed, loaderNeeds, mayLoseAttachType } from './loader-probes.ts'
import { chosenPrograms, type NeedsOptions, type ObjectNeed, objectNeeds, useGlobalData } from './object.ts'
import { capabilityWord, type Trial } from './trial.ts'

export interface NamedSpec {
  readonly name: string
  readonly spec: ObjectSpec
}

export interface PlanOptions extends Pick<NeedsOptions, 'kernelStruct'> {
  readonly loader: Loader
  /** What was found by loading objects, by their names. */
  readonly trials?: ReadonlyMap<string, Trial> | undefined
  /** Why objects without a trial were not tried, where that is to be told. */
  readonly untried?: string | undefined
  /** Only these programs; all objects' maps and types all the same, as loaders do it. */
  readonly programs?: readonly string[] | undefined
}

export interface PlannedRight {
  readonly domain: MaskDomain
  readonly word: string
  readonly bit: number
  /** Programs, maps and types, or what the loader wants it for. */
  readonly by: readonly string[]
  /** Only the loader's own probes ask for it. */
  readonly forLoader: boolean
  /** False: the loader's version, or its other findings, decide whether it is used. */
  readonly certain: boolean
  /** What is missing without it, where all is loaded the same. */
  readonly loses?: string
  /** A load was refused without it; the file does not show it. */
  readonly fromTrying?: true
}

export interface PlannedCapability {
  readonly name: Capability
  readonly by: readonly string[]
  readonly forLoader: boolean
  /** Only attaching asks for it: all is loaded without. */
  readonly toAttach: boolean
  /** A load was refused without it; the file does not show it. */
  readonly fromTrying?: true
}

/** How loading an object went, on this kernel and under its plan. */
export interface PlannedTrial {
  readonly object: string
  readonly outcome: Trial['outcome']
  readonly loads: number
  /** Capabilities that the file looks as if it needed, and that no load needed. */
  readonly leftOut: readonly Capability[]
  readonly why?: string
}

export interface RightsPlan {
  readonly loader: Loader
  readonly objects: readonly string[]
  readonly masks: Masks
  /** Ordered by domain, then the objects' rights before the loader's, then by bit. */
  readonly rights: readonly PlannedRight[]
  /** The capabilities that the workload needs in its own user namespace, besides a token. */
  readonly capabilities: readonly PlannedCapability[]
  /** Questions that the files leave open. */
  readonly notes: readonly string[]
  /** Why loading would fail whatever is lent. */
  readonly problems: readonly string[]
  /** Of the objects that were loaded to see; empty where none was. */
  readonly trials: readonly PlannedTrial[]
}

/**
 * The verifier follows values; the file does not tell what it will find. Source:
 * kernel/bpf/verifier.c, allow_ptr_leaks.
 */
const PERFMON_NOTE =
  'if the verifier refuses what it lets root load ("pointer comparison prohibited", "pointer -= pointer prohibited", "invalid read from stack"): add capability perfmon'

/** The union of what the objects need, loaded by that loader. */
export function planRights(specs: readonly NamedSpec[], options: PlanOptions): RightsPlan {
  const rights = new Map<string, Draft>()
  const capabilities: Capabilities = new Map()
  const attaching = new Map<Capability, Set<string>>()
  const notes = new Set<string>()
  const problems: string[] = []
  const labels = labelsOf(specs.map(({ name }) => name))
  addCapability(capabilities, 'CAP_BPF', 'every token', false)
  for (const { name, spec } of specs) {
    const named = (text: string) => (specs.length === 1 ? text : `${labels.get(name)}: ${text}`)
    const trial = options.trials?.get(name)
    const fromFile = objectNeeds(spec, {
      programs: options.programs,
      looseSections: options.loader === 'cilium-ebpf',
      kernelStruct: options.kernelStruct,
      loadsHere: trial?.outcome === 'loads',
    })
    const own = trial === undefined ? fromFile : { ...fromFile, needs: withoutDropped(fromFile.needs, trial) }
    const usesData = useGlobalData(spec, chosenPrograms(spec, options.programs))
    for (const need of own.needs) {
      addOwn(rights, capabilities, need, named(need.by), certainty(need, options.loader, usesData))
      for (const name of PROGRAM_CLASSES[need.rule?.type ?? '']?.attachCapabilities ?? [])
        attaching.set(name, (attaching.get(name) ?? new Set()).add(`to attach ${named(need.by)}`))
    }
    for (const need of loaderNeeds(options.loader, spec, own.needs, options.programs))
      addLoaders(rights, capabilities, need)
    if (trial !== undefined) {
      addFound(rights, capabilities, trial, named)
      for (const note of trialNotes(trial)) notes.add(named(note))
    }
    for (const note of own.notes) notes.add(named(note))
    problems.push(...own.problems.map(named))
    for (const note of loaderNotes(options.loader, spec, own.needs)) notes.add(note)
  }
  for (const program of options.programs ?? [])
    if (!specs.some(({ spec }) => spec.programs.some(({ name }) => name === program)))
      problems.push(`no object has a program ${quoted(program)}`)
  const untried = specs.filter(({ name }) => options.trials?.get(name)?.outcome !== 'loads')
  if (
    untried.length > 0 &&
    !capabilities.has('perfmon') &&
    [...rights.values()].some(({ domain }) => domain === 'progs')
  )
    notes.add(PERFMON_NOTE)
  if (options.untried !== undefined) notes.add(`not tried on a kernel: ${options.untried}`)
  settle(rights, options.loader)
  const planned = sorted([...rights.values()])
  return {
    loader: options.loader,
    objects: specs.map(({ name }) => name),
    masks: masksOf(planned),
    rights: planned,
    capabilities: CAPABILITIES.flatMap(name => {
      const loading = capabilities.get(name)
      const own = [...(loading?.forLoader === false ? loading.by : []), ...(attaching.get(name) ?? [])]
      const by = own.length === 0 ? [...(loading?.by ?? [])] : own
      const facts = {
        ...{ forLoader: own.length === 0, toAttach: loading === undefined },
        ...(loading?.found === true ? { fromTrying: true as const } : {}),
      }
      return by.length === 0 ? [] : [{ name, by, ...facts }]
    }),
    notes: [...notes],
    problems,
    trials: specs.flatMap(({ name }) => {
      const trial = options.trials?.get(name)
      if (trial === undefined) return []
      const { outcome, loads, dropped, why } = trial
      return [{ object: name, outcome, loads, leftOut: dropped, ...(why === undefined ? {} : { why }) }]
    }),
  }
}

/** The same needs without the capabilities that no load needed. */
function withoutDropped(needs: readonly ObjectNeed[], { dropped }: Trial): readonly ObjectNeed[] {
  if (dropped.length === 0) return needs
  return needs.map(need => {
    const byType = neededCapabilities(need.need)
    const capabilities = need.capabilities.filter(
      name => byType.includes(name) || !dropped.some(one => one === capabilityWord(name)),
    )
    return { ...need, capabilities }
  })
}

/** What loading asked for, each with the kernel's own words. */
function addFound(
  rights: Map<string, Draft>,
  capabilities: Capabilities,
  { added }: Trial,
  named: (text: string) => string,
): void {
  for (const { capability, right, by } of added) {
    const said = named(printableName(by))
    if (right !== undefined) {
      const found = draft(rights, right, false)
      found.by.add(said)
      found.certain = true
      found.optional = false
      found.found = true
    }
    if (capability === undefined) continue
    const known = capabilities.get(capability)
    if (known === undefined || known.forLoader)
      capabilities.set(capability, { by: new Set([said]), forLoader: false, found: true })
    else known.by.add(said)
  }
}

function trialNotes({ outcome, dropped, why }: Trial): string[] {
  const needless = dropped.map(
    name => `calls what may need capability ${name}, and was loaded on this kernel without it`,
  )
  switch (outcome) {
    case 'loads':
      return ['was loaded on this kernel under just these rights', ...needless]
    case 'refused':
      return [
        `does not load on this kernel, whatever is lent, so the rights are what the file says: ${printableName(why ?? '')}`,
      ]
    case 'unfinished':
      return ['trying it took too long, so the rights are what the file says, and what was found until then']
  }
}

/**
 * What each object is called in reasons: its name without folders, where that is enough to tell it
 * from the others.
 */
function labelsOf(names: readonly string[]): ReadonlyMap<string, string> {
  const short = (name: string) => name.slice(name.lastIndexOf('/') + 1)
  const shared = new Set(names).size !== new Set(names.map(short)).size
  return new Map(names.map(name => [name, printableName(shared ? name : short(name))]))
}

interface Draft extends Right {
  by: Set<string>
  forLoader: boolean
  certain: boolean
  /** All that ask for this attach type may lose it on the way. */
  optional: boolean
  loses: string | undefined
  found: boolean
}

/** The draft for a right: what the object asks for stands before what the loader asks for. */
function draft(rights: Map<string, Draft>, right: Right, forLoader: boolean): Draft {
  const key = `${right.domain} ${right.bit}`
  const known = rights.get(key)
  if (known !== undefined && (known.forLoader === forLoader || forLoader)) return known
  const made = {
    ...right,
    by: new Set<string>(),
    forLoader,
    certain: known?.certain ?? false,
    optional: true,
    loses: undefined,
    found: false,
  }
  rights.set(key, made)
  return made
}

type Capabilities = Map<Capability, { by: Set<string>; forLoader: boolean; found?: true }>

/**
 * Whether loading fails without what is asked for; `optional`: not the attach type, where the
 * loader drops it.
 */
type Certainty = 'certain' | 'optional' | 'perhaps'

function certainty(need: ObjectNeed, loader: Loader, usesData: boolean): Certainty {
  // Both go on without types where nothing needs them.
  if (loader === 'bpftoken') return need.loses === undefined ? 'certain' : 'perhaps'
  if (loader !== 'libbpf') return 'certain'
  // It goes on without global data that no program uses.
  if (need.need.cmd === 'btf_load' || (need.globalData === true && !usesData)) return 'perhaps'
  // Where its probe of uprobe_multi is refused, it loads these without, and attaches by perf events.
  return mayLoseAttachType(need) || need.rule?.autoAttach === 'usdt' ? 'optional' : 'certain'
}

function addOwn(
  rights: Map<string, Draft>,
  capabilities: Capabilities,
  need: ObjectNeed,
  by: string,
  certain: Certainty,
): void {
  for (const right of neededRights(need.need)) {
    const found = draft(rights, right, false)
    found.by.add(by)
    if (right.domain === 'cmds' && certain === 'perhaps') found.loses = need.loses
    const losable = right.domain === 'attachs' && certain === 'optional'
    if (!losable) found.optional = false
    if (!losable && certain !== 'perhaps') found.certain = true
  }
  for (const name of need.capabilities) addCapability(capabilities, name, by, false)
}

function addLoaders(rights: Map<string, Draft>, capabilities: Capabilities, need: LoaderNeed): void {
  for (const right of neededRights(need.need)) {
    const found = draft(rights, right, true)
    if (found.forLoader) found.by.add(need.why)
    if (need.certain) found.certain = true
    found.optional = false
  }
  for (const name of need.capabilities) addCapability(capabilities, name, need.why, true)
}

function addCapability(all: Capabilities, name: CapabilityName, by: string, forLoader: boolean): void {
  const word = capabilityWord(name)
  if (word === undefined) return
  const known = all.get(word)
  if (known === undefined || (known.forLoader && !forLoader)) all.set(word, { by: new Set([by]), forLoader })
  else if (known.forLoader === forLoader && !known.by.has('every token')) known.by.add(by)
}

/** The parts of libbpf's needs that depend on everything that is lent together. */
function settle(rights: Map<string, Draft>, loader: Loader): void {
  if (loader !== 'libbpf') return
  const find = (domain: MaskDomain, word: string) =>
    [...rights.values()].find(right => right.domain === domain && right.word === word)
  // Its trivial program is a socket filter or else a tracepoint program, either of attach type 0.
  const trivial = [find('cmds', 'prog_load'), find('attachs', 'cgroup_inet_ingress')]
  if (find('progs', 'tracepoint') === undefined) trivial.push(find('progs', 'socket_filter'))
  for (const right of trivial) if (right !== undefined) right.certain = true
  // With cgroup_sock lent its probe of attach types succeeds, and all of them count.
  if (find('progs', 'cgroup_sock') !== undefined && find('attachs', 'cgroup_inet_sock_create') !== undefined)
    for (const right of rights.values())
      if (right.domain === 'attachs' && right.optional && right.word !== 'trace_uprobe_multi')
        right.certain = true
}

function loaderNotes(loader: Loader, spec: ObjectSpec, needs: readonly ObjectNeed[]): string[] {
  const notes: string[] = []
  const opens = needs.some(({ need }) => need.cmd === 'btf_get_fd_by_id')
  switch (loader) {
    case 'libbpf':
      if (needs.some(mayLoseAttachType) && !needs.some(({ need }) => need.progType === 'cgroup_sock'))
        notes.push(
          'libbpf probes attach types with a cgroup_sock program, which is not lent; it then loads programs whose section allows it with attach type 0 (cgroup_inet_ingress), so both are listed',
        )
      if (needs.some(({ need }) => need.mapType === 'insn_array'))
        notes.push(
          'libbpf (1.8) makes the maps for jump tables without a token: this fails in a workload whatever is lent',
        )
      if (spec.btf === undefined && spec.maps.some(({ kind }) => kind === 'declared'))
        notes.push('libbpf 1.0 and later refuse maps that are not described in BTF')
      break
    case 'cilium-ebpf':
      if (opens)
        notes.push(
          'cilium/ebpf does not open types by id with a token (0.22): this fails in a workload whatever is lent',
        )
      break
    case 'aya':
      notes.push('aya has no support for tokens yet (0.13): these rights are what it will need')
      break
    case 'bpftoken':
      break
  }
  return notes
}

function sorted(drafts: readonly Draft[]): PlannedRight[] {
  const order = (right: Draft) =>
    MASK_DOMAINS.indexOf(right.domain) * 256 + Number(right.forLoader) * 128 + right.bit
  return [...drafts]
    .sort((a, b) => order(a) - order(b))
    .map(({ domain, word, bit, by, forLoader, certain, loses, found }) => ({
      ...{ domain, word, bit, by: [...by], forLoader, certain },
      ...(certain || loses === undefined ? {} : { loses }),
      ...(found ? { fromTrying: true as const } : {}),
    }))
}

function masksOf(rights: readonly PlannedRight[]): Masks {
  const masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  for (const { domain, bit } of rights) if (bit < 64) masks[domain] |= 1n << BigInt(bit)
  return masks
}

/** The fields in which a policy is compared with a plan. */
export interface LentRights {
  readonly masks: Masks
  readonly capabilities: readonly Capability[]
}

export interface RightsComparison {
  readonly lacking: readonly {
    readonly domain: MaskDomain | 'capabilities'
    readonly word: string
    readonly by: readonly string[]
    readonly certain: boolean
  }[]
  /** Bits by domain that no object and no probe asks for. */
  readonly needless: Masks
  readonly needlessCapabilities: readonly Capability[]
}

/** Rights that the policy lacks, and rights that it grants needlessly. */
export function compareRights(plan: RightsPlan, lent: LentRights): RightsComparison {
  const lacking = plan.rights
    .filter(({ domain, bit }) => ((lent.masks[domain] >> BigInt(bit)) & 1n) === 0n)
    .map(({ domain, word, by, certain }) => ({ domain, word, by, certain }))
  // CAP_SYS_ADMIN stands in for every other capability.
  const held = (name: Capability) =>
    lent.capabilities.includes(name) || lent.capabilities.includes('sys_admin')
  const without = plan.capabilities
    .filter(({ name }) => !held(name))
    .map(({ name, by }) => ({ domain: 'capabilities' as const, word: name, by, certain: true }))
  const beyond = (domain: MaskDomain) => lent.masks[domain] & ~plan.masks[domain]
  return {
    lacking: [...lacking, ...without],
    needless: {
      cmds: beyond('cmds'),
      maps: beyond('maps'),
      progs: beyond('progs'),
      attachs: beyond('attachs'),
    },
    needlessCapabilities: lent.capabilities.filter(name => !plan.capabilities.some(one => one.name === name)),
  }
}
