/**
 * A unit of systemd: its main process, where that has a user namespace of its own, else the one of
 * its cgroup that has (a unit of Podman's has conmon as its main process). Units of a user's own
 * systemd are known by their cgroup alone, which needs no bus of that user's.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ConflictError, InputError, NotFoundError, NotSupportedError } from '../../errors.ts'
import { PROCESS_IDS, parseWithin } from '../../uapi/number-range.ts'
import { systemProgram } from '../program-path.ts'
import { cgroupRoot, findBelow, processWithin } from './cgroup.ts'
import type { Found, Owner } from './found.ts'
import { ask } from './system-program.ts'

const PROPERTIES = ['Id', 'LoadState', 'ActiveState', 'MainPID', 'ControlGroup', 'InvocationID'] as const
/** sd_booted(3). */
const BOOTED = '/run/systemd/system'
/** systemd.unit(5): what names are made of, and how long they are. */
const UNIT_NAME = /^(?!-)[a-zA-Z0-9:_.\\@-]{1,255}$/
const HAS_TYPE = /\.(service|scope|slice)$/

export async function processOfUnit(name: string, owner: Owner | undefined): Promise<Found> {
  const { directory, what, mainPid, run } = await placeOfUnit(name, owner)
  const found = processWithin(directory, what, mainPid)
  return run === undefined ? found : { ...found, identity: `${run} ${found.identity}` }
}

/** The cgroup of a unit that runs, whatever namespaces its processes have. */
export async function cgroupOfUnit(name: string, owner: Owner | undefined): Promise<string> {
  return (await placeOfUnit(name, owner)).directory
}

interface Place {
  readonly directory: string
  /** For people. */
  readonly what: string
  readonly mainPid: number | undefined
  /** Another text for each start; undefined: nobody tells. */
  readonly run: string | undefined
}

async function placeOfUnit(name: string, owner: Owner | undefined): Promise<Place> {
  if (!UNIT_NAME.test(name))
    throw new InputError(`${JSON.stringify(name)} cannot be the name of a unit`, {
      reason: 'name-unknown',
      context: { unit: name },
    })
  const unit = HAS_TYPE.test(name) ? name : `${name}.service`
  const systemctl = systemProgram('systemctl')
  if (!existsSync(BOOTED) || systemctl === undefined)
    throw new NotSupportedError('systemd does not run here', {
      context: { unit },
      reason: 'names-unavailable',
    })
  if (owner !== undefined) return placeOfUserUnit(unit, owner)
  return placeOfState(
    parseUnitState(await ask(systemctl, ['show', `--property=${PROPERTIES.join(',')}`, '--', unit])),
    unit,
  )
}

export interface UnitState {
  readonly loaded: boolean
  /** systemd's word: `active`, `inactive`, `failed`. */
  readonly active: string
  readonly mainPid: number | undefined
  /** Below the root of cgroups; undefined: it has none. */
  readonly cgroup: string | undefined
  /** Another one for each start. */
  readonly invocation: string
}

/** Pure: the answer of `systemctl show`, a property a line. */
export function parseUnitState(text: string): UnitState {
  const fields = new Map(
    text.split('\n').map(line => {
      const at = line.indexOf('=')
      return [line.slice(0, Math.max(at, 0)), line.slice(at + 1)]
    }),
  )
  const cgroup = fields.get('ControlGroup') ?? ''
  return {
    loaded: fields.get('LoadState') === 'loaded',
    active: fields.get('ActiveState') ?? 'in an unknown state',
    mainPid: parseWithin(PROCESS_IDS, fields.get('MainPID') ?? ''),
    // It comes from systemd, and is joined to a path all the same.
    cgroup: cgroup.startsWith('/') && !cgroup.split('/').includes('..') ? cgroup : undefined,
    invocation: fields.get('InvocationID') ?? '',
  }
}

function placeOfState(state: UnitState, unit: string): Place {
  const context = { unit }
  if (!state.loaded)
    throw new NotFoundError(`There is no unit ${unit}`, {
      context,
      reason: 'name-unknown',
    })
  const root = cgroupRoot()
  if (state.active === 'inactive' || state.active === 'failed' || state.cgroup === undefined)
    throw new ConflictError(`Unit ${unit} is ${state.active}, and has no process to lend to`, {
      context,
      hint: `Start it first: systemctl start ${unit}`,
    })
  if (root === undefined) throw new NotSupportedError('This machine has no cgroups of version 2', { context })
  return {
    directory: join(root, state.cgroup),
    what: `unit ${unit}`,
    mainPid: state.mainPid,
    run: `${unit} ${state.invocation}`,
  }
}

/** pam_systemd and systemd agree on where a user's units are. */
function placeOfUserUnit(unit: string, owner: Owner): Place {
  const context = { unit, uid: owner.uid }
  const above = `user.slice/user-${owner.uid}.slice/user@${owner.uid}.service`
  const directories = findBelow(join(cgroupRoot() ?? '/', above), unit)
  const [directory] = directories
  if (directory === undefined)
    throw new NotFoundError(`User ${owner.name} has no unit ${unit} that runs`, {
      context,
      hint: `systemctl --user --machine=${owner.name}@ list-units shows those that there are`,
    })
  if (directories.length > 1)
    throw new ConflictError(`User ${owner.name} has several cgroups ${unit}: ${directories.join(', ')}`, {
      context,
      hint: 'Name one of these cgroups',
    })
  return { directory, what: `unit ${unit} of user ${owner.name}`, mainPid: undefined, run: undefined }
}
