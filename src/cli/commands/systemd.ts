/** bpftoken systemd dropin: has systemd lend to a unit each time that it starts. */

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { z } from 'zod'
import type { systemdDropin } from '../../api/systemd.ts'
import { shellPath, shellWord } from '../../ebpf/printable.ts'
import {
  ConflictError,
  EXIT,
  InputError,
  NotFoundError,
  NotSupportedError,
  UsageError,
} from '../../errors.ts'
import { requireNoApproval } from '../../lending/admission.ts'
import { systemProgram } from '../../lending/program-path.ts'
import { ask } from '../../lending/recipient/system-program.ts'
import { guardNeeds } from '../../policy/guard-needs.ts'
import { type AdmissionOptions, requireNoSubjects } from '../admission.ts'
import { note, print, printJson, word } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { commandsOf, NATIVE_SINCE, nativeDropin, runDropin } from '../systemd-dropin.ts'

export interface DropinOptions extends AdmissionOptions {
  policy?: string
  dir: string
  systemd?: number
  remove?: boolean
  dryRun?: boolean
  json?: boolean
}

type Dropin = z.output<typeof systemdDropin>

const FILE = '50-bpftoken.conf'
/** systemd.unit(5). */
const UNIT_NAME = /^(?!-)[a-zA-Z0-9:_.\\@-]{1,255}$/
/** Whom systemd prepares units with, for the guard. */
const EXECUTOR = '/usr/lib/systemd/systemd-executor'

export async function dropin(name: string, options: DropinOptions): Promise<number> {
  const unit = unitOf(name)
  const file = join(options.dir, `${unit}.d`, FILE)
  if (options.dryRun !== true) requireRoot('bpftoken systemd dropin')
  if (options.remove === true) return remove(unit, file, options)
  if (options.policy === undefined) throw new UsageError('Say --policy, or --remove')
  const version = options.systemd ?? (await versionHere())
  const made =
    version >= NATIVE_SINCE
      ? await native(unit, options.policy, options)
      : await byRun(unit, file, options.policy)
  const before = readIfThere(file)
  const told: Dropin = {
    ...{ unit, file, systemd: version, way: made.way, policy: made.policy },
    text: made.text,
    changed: before !== made.text,
    next: [...(before === made.text ? [] : restart(unit)), ...made.next],
  }
  if (options.dryRun !== true && told.changed) write(file, made.text)
  if (options.json === true) printJson(told)
  else if (options.dryRun === true) print(...made.text.trimEnd().split('\n'))
  else
    print(
      told.changed ? `${word(file)} is written, for systemd ${version}` : `${word(file)} is there already`,
    )
  if (options.json !== true) for (const next of told.next) note(`next: ${next}`)
  return EXIT.ok
}

interface Made {
  readonly way: Dropin['way']
  readonly policy: string
  readonly text: string
  readonly next: string[]
}

/** systemd mounts: what it cannot hold to is refused. */
async function native(unit: string, file: string, options: DropinOptions): Promise<Made> {
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(file, vocabulary)
  requireNoApproval(policy, 'systemd lends without asking')
  requireNoSubjects(policy, 'to whom systemd lends is not compared with them', options)
  const needs = guardNeeds(policy)
  if (needs.length > 0 && policy.guard === 'required')
    throw new NotSupportedError(
      `systemd does not hold to ${needs.map(({ path }) => path).join(', ')} of policy "${policy.name}"`,
      { hint: 'Lend to the unit when it runs, through bpftoken: bpftoken delegate --unit' },
    )
  for (const { path } of needs) note(`systemd does not hold to ${path}`)
  const { user } = await unitHere(unit)
  const allow = `where the guard is installed, let systemd lend that much: bpftoken guard allow --implicit --exe ${EXECUTOR} --policy ${shellPath(file)}`
  return {
    ...{ way: 'native', policy: policy.name },
    text: nativeDropin(policy, vocabulary, user),
    next: [allow],
  }
}

/** The daemon lends: the unit's user must be a subject of the policy. */
async function byRun(unit: string, file: string, policy: string): Promise<Made> {
  const name = await policyName(policy)
  const { user, text } = await unitHere(unit)
  if (text === undefined)
    throw new NotFoundError(`There is no unit ${unit} here, whose ExecStart= would be changed`)
  if (user === undefined)
    throw new ConflictError(`${unit} runs as root, and bpftoken run starts nothing as root`, {
      hint: `Set User= in the unit to a user whom policy "${name}" names`,
    })
  const bpftoken = systemProgram('bpftoken') ?? '/usr/bin/bpftoken'
  return {
    ...{ way: 'run', policy: name },
    text: runDropin(name, commandsOf(text, file), bpftoken),
    next: [`let bpftokend have the policy "${name}", with the subject user: ${user}`],
  }
}

/** That of a file, or the name itself. */
async function policyName(policy: string): Promise<string> {
  if (/\/|\.ya?ml$/.test(policy)) return (await loadPolicy(policy, await loadVocabulary())).name
  if (!/^[a-z0-9][a-z0-9.-]*$/.test(policy))
    throw new InputError('That is no name of a policy', { context: { policy } })
  return policy
}

function remove(unit: string, file: string, options: DropinOptions): number {
  const text = readIfThere(file)
  if (text !== undefined && options.dryRun !== true) rmSync(file)
  const next = text === undefined ? [] : restart(unit)
  if (options.json === true) printJson({ unit, file, removed: text !== undefined, next })
  else if (text === undefined) print(`There is no ${word(file)}`)
  else print(options.dryRun === true ? `${word(file)} would be removed` : `${word(file)} is gone`)
  if (options.json !== true) for (const one of next) note(`next: ${one}`)
  return EXIT.ok
}

const restart = (unit: string): string[] => [
  `systemctl daemon-reload && systemctl restart ${shellWord(unit)}`,
]

function unitOf(name: string): string {
  const unit = /\.[a-z]+$/.test(name) ? name : `${name}.service`
  if (UNIT_NAME.test(unit) && unit.endsWith('.service')) return unit
  throw new InputError(`${word(name)} is no name of a service`, {
    hint: 'Give it as systemctl does: agent.service',
  })
}

/** Whole or not at all, whenever systemd reads it. */
function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o755 })
  writeFileSync(`${file}.new`, text, { mode: 0o644 })
  renameSync(`${file}.new`, file)
}

function readIfThere(file: string): string | undefined {
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined
}

async function versionHere(): Promise<number> {
  const systemctl = systemProgram('systemctl')
  if (systemctl === undefined)
    throw new NotSupportedError('There is no systemd here', {
      hint: 'For another machine say its version: --systemd 262',
    })
  const [, version] = /^systemd (\d{1,5})\b/.exec(await ask(systemctl, ['--version'])) ?? []
  if (version === undefined)
    throw new NotSupportedError('systemctl does not say its version', { hint: 'Say it: --systemd 262' })
  return Number(version)
}

interface UnitHere {
  /** That is not root. */
  readonly user: string | undefined
  /** Its files; undefined: it is not here, or systemd does not run. */
  readonly text: string | undefined
}

async function unitHere(unit: string): Promise<UnitHere> {
  const systemctl = systemProgram('systemctl')
  const nowhere = { user: undefined, text: undefined }
  if (systemctl === undefined || !existsSync('/run/systemd/system')) return nowhere
  const shown = await ask(systemctl, ['show', '-p', 'LoadState,User,DynamicUser', '--', unit])
  const field = (name: string): string => new RegExp(`(?:^|\n)${name}=([^\n]*)`).exec(shown)?.[1] ?? ''
  if (field('LoadState') !== 'loaded') {
    note(`systemd does not know ${unit} yet`)
    return nowhere
  }
  const user = field('User')
  const isRoot = (user === '' || user === 'root' || user === '0') && field('DynamicUser') !== 'yes'
  return {
    user: isRoot ? undefined : user || 'DynamicUser=',
    text: await ask(systemctl, ['cat', '--', unit]),
  }
}
