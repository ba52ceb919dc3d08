/** A container by its name or id, whichever engine has it. */
import { ConflictError, FormatError, InputError, NotFoundError, NotSupportedError } from '../../errors.ts'
import { type Container, isContainerName } from './container-list.ts'
import { askDocker } from './docker.ts'
import type { Found, Owner } from './found.ts'
import { podmanContainers } from './podman.ts'

/** A container of `owner` if there is one, else of root. */
export async function processOfContainer(name: string, owner: Owner | undefined): Promise<Found> {
  if (!isContainerName(name))
    throw new InputError(`${JSON.stringify(name)} cannot be the name or id of a container`, {
      reason: 'name-unknown',
      context: { container: name },
    })
  const [podman, docker] = await Promise.all([podmanContainers(owner), askDocker(owner)])
  if (podman === undefined && docker === undefined)
    throw new NotSupportedError(`There is neither Podman nor a running Docker${of(owner)} here`, {
      context: { container: name },
      reason: 'names-unavailable',
    })
  const one = chooseContainer([...(podman ?? []), ...(docker?.containers ?? [])], name, owner)
  // Details are asked of this one container only: there can be any number of others.
  return runOf(docker !== undefined && one.source === 'Docker' ? await docker.details(one) : one, name, owner)
}

/** Pure. The one container that is meant. */
export function chooseContainer(all: readonly Container[], name: string, owner?: Owner): Container {
  const context = { container: name }
  const known = [...new Map(all.map(one => [one.id, one])).values()]
  // A name goes before the beginning of an id, as it does with the engines themselves.
  const called = known.filter(one => one.names.includes(name) || one.id === name)
  const meant = called.length > 0 ? called : known.filter(one => one.id.startsWith(name))
  const [one] = meant
  if (one === undefined)
    throw new NotFoundError(`There is no container ${JSON.stringify(name)}${of(owner)}${candidates(known)}`, {
      context,
      reason: 'name-unknown',
    })
  if (meant.length > 1)
    throw new ConflictError(
      `${JSON.stringify(name)} means several containers${of(owner)}${candidates(meant)}`,
      {
        context,
        reason: 'name-ambiguous',
      },
    )
  return one
}

/** Pure. The container's process: it must run. */
export function runOf(one: Container, name: string, owner?: Owner): Found {
  if (one.pid === undefined)
    throw new ConflictError(
      `Container ${describe(one)}${of(owner)} is ${one.state}, and has no process to lend to`,
      {
        context: { container: name, id: one.id },
        hint: 'Start it first',
      },
    )
  if (one.startedAt === undefined)
    throw new FormatError(one.source, `of container ${describe(one)} it does not say since when it runs`)
  return {
    pid: one.pid,
    startedAt: one.startedAt,
    what: `container ${describe(one)} of ${owner === undefined ? '' : `${owner.name}'s `}${one.source}`,
    identity: `${one.source} ${one.id} ${one.startedAt} ${one.pid}`,
  }
}

const SHOWN = 8
const SHORT_ID_CHARS = 12

function describe({ names, id }: Container): string {
  const [name] = names
  return name === undefined ? id.slice(0, SHORT_ID_CHARS) : `${name} (${id.slice(0, SHORT_ID_CHARS)})`
}

function candidates(all: readonly Container[]): string {
  if (all.length === 0) return ', nor any other'
  const shown = all.slice(0, SHOWN).map(one => `${describe(one)} of ${one.source}, ${one.state}`)
  const more = all.length > SHOWN ? [`and ${all.length - SHOWN} more`] : []
  return `: ${[...shown, ...more].join('; ')}`
}

function of(owner: Owner | undefined): string {
  return owner === undefined ? '' : ` of user ${owner.name}`
}
