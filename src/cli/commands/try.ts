/**
 * bpftoken try: from an object file to a running program in one command. Plans the least policy,
 * lends it to `bpftoken obj load --watch` in namespaces of its own, and takes all back at its end.
 */
import { writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import path from 'node:path'
import { DEFAULT_PATH } from '../../delegation/actions.ts'
import { isForCgroups } from '../../ebpf/attach/placement.ts'
import { type ObjectProgram, type ObjectSpec, parseObject } from '../../ebpf/object/spec.ts'
import { printableName, quoted, shellPath, shellWord } from '../../ebpf/printable.ts'
import {
  ConflictError,
  DeniedError,
  FormatError,
  NotFoundError,
  NotSupportedError,
  UsageError,
} from '../../errors.ts'
import { accounts } from '../../lending/accounts.ts'
import { HeldProgram, prepareRun } from '../../lending/run.ts'
import { ownCgroup, planTrial, type TrialPlan } from '../../lending/try.ts'
import { policyText } from '../../needs/format/policy.ts'
import { compareRights, planRights, type RightsPlan } from '../../needs/plan.ts'
import { parsePolicy } from '../../policy/parse.ts'
import { CAPABILITIES, type Policy } from '../../policy/policy.ts'
import { assessRisk, type RiskAssessment } from '../../policy/risk.ts'
import { specText } from '../attach-spec.ts'
import { exactText, parseWish, placementsFor, placementText } from '../attachments.ts'
import { workloadEnvironment } from '../environment.ts'
import { installedGuard } from '../installed-guard.ts'
import { structOfKernel } from '../kernel-structs.ts'
import { readObjectFile } from '../object-files.ts'
import { note, print, printJson } from '../output.ts'
import { loadVocabulary, readPolicyText } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { requireReachable } from '../reachable.ts'
import { type HostUser, resolveUser } from '../user.ts'
import { holdSignals } from './run.ts'

export interface TryOptions {
  attach?: string[]
  program?: string[]
  policy?: string
  cap?: string[]
  savePolicy?: string
  user?: string
  hostNet?: boolean
  ping: boolean
  yes?: boolean
  json?: boolean
}

/** Of `bpftoken obj load`, which runs inside. */
const MAIN = path.resolve(__dirname, '../main.js')

export async function tryObject(file: string, options: TryOptions): Promise<number> {
  requireRoot('bpftoken try')
  const json = options.json === true
  const bytes = readObjectFile(file)
  const name = path.basename(file).replace(/\.o$/, '')
  const spec = parseObject(bytes, { name })
  const programs = chosen(spec, options.program)
  const vocabulary = await loadVocabulary()
  const network = options.hostNet === true ? 'host' : 'own'
  const user = resolveUser(options.user, process.env)

  const planned = planRights([{ name: file, spec }], {
    loader: 'bpftoken',
    programs: options.program,
    kernelStruct: structOfKernel(),
  })
  const plan = withCapabilities(planned, options.cap ?? [])
  if (plan.problems.length > 0)
    throw new FormatError(
      'BPF object',
      `"${printableName(file)}" cannot be loaded as it is: ${plan.problems.join('; ')}`,
    )
  const text = policyTextFor(plan, options, network)
  const policy = parsePolicy(text, { source: options.policy ?? 'the plan', vocabulary })
  const risk = assessRisk(policy, vocabulary)

  const wishes = (options.attach ?? []).map(parseWish)
  placementsFor(programs, wishes)
  const cgroup = programs.some(({ rule }) => isForCgroups(rule?.type ?? '')) ? ownCgroup(user) : undefined
  const trial = planTrial(spec, programs, { wishes, ownNetwork: network === 'own', cgroup })

  sayBefore({ file, text, risk, trial, user, network, json, planned: options.policy === undefined })
  if (options.policy !== undefined) sayLacking(plan, policy, options.policy)
  requireUse(trial, file, options)
  if (risk.level === 'critical' && options.yes !== true) throw tooRisky(risk, policy)
  requireReachable(user, [process.execPath, MAIN])
  using guard = await installedGuard()
  const ping = options.ping && network === 'own'
  const prepared = prepareRun({
    ...{ policy, vocabulary, accounts, guard, path: DEFAULT_PATH },
    program: {
      command: [process.execPath, MAIN, ...loaderWords(name, trial, options, ping)],
      ...{ uid: user.uid, gid: user.gid, network, capabilities: [] },
      env: workloadEnvironment(process.env, { user, tokenPath: DEFAULT_PATH }),
      stdio: ['pipe', 'inherit', 'inherit'],
      stopTogether: true,
      ...(cgroup === undefined ? {} : { killRest: true, cgroup }),
    },
  })
  for (const field of prepared.unenforced) note(`without the guard nothing enforces ${field}`)
  if (options.savePolicy !== undefined) savePolicy(options.savePolicy, text)
  if (ping) note('it sends itself packets over the loopback device of its own network, once a second')

  using signals = holdSignals()
  using program = await HeldProgram.start(prepared)
  signals.toProgram(program)
  await program.lend({ signal: signals.abort.signal })
  signals.abort.signal.throwIfAborted()
  signals.released = true
  await program.release()
  // If it ends without reading, its status says so.
  program.stdin!.on('error', () => {}).end(bytes)
  const { code, signal } = await program.ended()
  return code ?? 128 + constants.signals[signal!]
}

/** NotFoundError: the object has no such program. */
function chosen({ programs }: ObjectSpec, names: readonly string[] | undefined): ObjectProgram[] {
  for (const name of names ?? [])
    if (!programs.some(program => program.name === name))
      throw new NotFoundError(`The object has no program ${quoted(name)}`, {
        context: { program: name },
        hint: `It has: ${programs.map(program => program.name).join(', ') || 'none'}`,
      })
  return programs.filter(program => names?.includes(program.name) ?? program.autoload)
}

/** The words for `bpftoken`, inside. */
function loaderWords(name: string, { places }: TrialPlan, options: TryOptions, ping: boolean): string[] {
  return [
    'obj',
    'load',
    '--watch',
    `--name=${name}`,
    ...places.map(place => `--attach=${exactText(place)}`),
    ...(options.program ?? []).map(program => `--program=${program}`),
    ...(ping ? ['--ping'] : []),
    ...(options.json === true ? ['--json'] : []),
    '-',
  ]
}

/** The file does not tell which programs need perfmon; the verifier does. */
function withCapabilities(plan: RightsPlan, names: readonly string[]): RightsPlan {
  const further = names.map(name => {
    const known = CAPABILITIES.find(one => one === name)
    if (known === undefined)
      throw new UsageError(`A policy lends no capability "${name}"`, {
        hint: `It can lend ${CAPABILITIES.join(', ')}`,
      })
    return { name: known, by: ['--cap'], forLoader: false, toAttach: false }
  })
  const rest = further.filter(({ name }) => !plan.capabilities.some(one => one.name === name))
  return { ...plan, capabilities: [...plan.capabilities, ...rest] }
}

/** As `bpftoken plan` prints it, for this network; or the policy that the caller names. */
function policyTextFor(plan: RightsPlan, { policy }: TryOptions, network: 'own' | 'host'): string {
  if (policy !== undefined) return readPolicyText(policy)
  const lines = policyText(plan)
  if (network === 'own') return `${lines.join('\n')}\n`
  // Its risk is told for a network of its own.
  const terms = lines.filter(line => !line.startsWith('#'))
  return `${terms.join('\n')}\n  network: host\n`
}

interface Announcement {
  readonly file: string
  readonly text: string
  readonly risk: RiskAssessment
  readonly trial: TrialPlan
  readonly user: HostUser
  readonly network: 'own' | 'host'
  readonly json: boolean
  readonly planned: boolean
}

/** Shows, before anything is done, what will be lent, to whom, and what follows from it. */
function sayBefore({ file, text, risk, trial, user, network, json, planned }: Announcement): void {
  const attach = trial.places.map(placementText)
  if (json) {
    const { idle } = trial
    printJson(
      { type: 'policy', file, policy: text, risk, user: user.name, uid: user.uid, network, attach, idle },
      'compact',
    )
    return
  }
  // Listing everything that is rated low would hide the rest.
  print(...text.split('\n').filter(line => !/^# {3}low: /.test(line)))
  const what = planned ? 'the least policy' : 'this policy'
  print(
    `${what}, lent to ${user.name} (${user.uid}:${user.gid}) in ${networkText(network)}; risk: ${risk.level}`,
  )
  for (const { program, spec } of trial.places)
    print(
      `  attaches ${printableName(program)} ${spec === undefined ? 'by its section' : `to ${specText(spec)}`}`,
    )
  for (const { program, why } of trial.idle) print(`  does not attach ${printableName(program)}: ${why}`)
}

function networkText(network: 'own' | 'host'): string {
  return network === 'own' ? 'a network of its own' : "the host's network"
}

/** The kernel's refusal then comes as no surprise. */
function sayLacking(plan: RightsPlan, policy: Policy, file: string): void {
  for (const { domain, word, by } of compareRights(plan, policy.rights).lacking)
    note(`${file} lacks ${domain} ${word}, for ${by.slice(0, 3).join(', ')}`)
}

/** Fail early: there would be nothing to see. */
function requireUse({ places, idle }: TrialPlan, file: string, { program = [] }: TryOptions): void {
  if (places.length > 0) return
  if (idle.length === 0)
    throw new UsageError(`"${printableName(file)}" has no program that is loaded by itself`, {
      hint: 'Name one with --program',
    })
  const needsHost = idle.some(one => one.needsHost)
  throw new NotSupportedError(
    [
      'Nothing of this object can be attached under a delegation',
      ...idle.map(({ program, why }) => `${program}: ${why}`),
    ],
    {
      context: { programs: idle.map(({ program }) => program).join(',') },
      hint: needsHost
        ? `The policy above is what loading takes. As root, without a delegation: ${asRoot(file, program)}`
        : 'Name a place with --attach, or only load it: bpftoken run --policy POLICY -- bpftoken obj load OBJECT',
    },
  )
}

function asRoot(file: string, programs: readonly string[]): string {
  const chosen = programs.map(name => `--program=${shellWord(name)}`)
  return ['bpftoken obj load', shellPath(file), ...chosen, '--attach auto --watch'].join(' ')
}

function tooRisky({ items }: RiskAssessment, { name }: Policy): DeniedError {
  const critical = items.filter(({ level }) => level === 'critical')
  return new DeniedError(
    [
      'What this object needs is as good as root on the host',
      ...critical.map(({ domain, word, reason }) => `${domain} ${word}: ${reason}`),
    ],
    {
      context: { policy: name, risk: 'critical' },
      hint: 'Say --yes to lend it all the same, or leave these programs out with --program',
    },
  )
}

/** Fail closed: an existing file is never overwritten. */
function savePolicy(file: string, text: string): void {
  try {
    writeFileSync(file, text, { flag: 'wx' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    throw new ConflictError(`Cannot write the policy to "${file}": ${code}`, {
      context: { file, errno: code },
      hint:
        code === 'EEXIST'
          ? 'Name a file that is not there yet'
          : 'Name a file in a directory that you may write to',
    })
  }
  note(`wrote the policy to ${file}`)
}
