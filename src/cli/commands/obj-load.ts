/**
 * bpftoken obj load: loads an object with whatever rights the caller has; a one-line trial of a
 * policy.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs'
import { basename } from 'node:path'
import type { Placement, Wish } from '../../ebpf/attach/placement.ts'
import { attachProgram, attachStructOpsMap } from '../../ebpf/attach/section.ts'
import type { StructOpsRegistration } from '../../ebpf/attach/trace.ts'
import { Link } from '../../ebpf/link.ts'
import { type LoadedObject, loadObject } from '../../ebpf/load/object.ts'
import { parseObject } from '../../ebpf/object/spec.ts'
import { Owned } from '../../ebpf/owned.ts'
import { defaultToken } from '../../ebpf/token.ts'
import { DeniedError, EXIT, SyscallError, UsageError } from '../../errors.ts'
import { parseWish, placementsFor } from '../attachments.ts'
import { initialValues } from '../initial-values.ts'
import { interruption } from '../interrupted.ts'
import { readKernelTypes, readObjectFile } from '../object-files.ts'
import { columns, note, print, printJson, warn } from '../output.ts'

export interface ObjLoadOptions {
  program?: string[]
  pin?: string
  attach?: string[]
  watch?: boolean
  ping?: boolean
  name?: string
  set?: string[]
  btf?: string
  json?: boolean
}

export async function load(file: string, options: ObjLoadOptions): Promise<number> {
  const name = options.name ?? basename(file).replace(/\.o$/, '')
  const spec = parseObject(readObjectFile(file), { name })
  // Checked before anything is made.
  const wishes = (options.attach ?? []).map(parseWish)
  if (options.pin !== undefined && options.watch === true)
    throw new UsageError('--pin leaves, and --watch stays', { hint: 'Choose one of them' })
  const initial = initialValues(spec, options.set ?? [])
  const token = defaultToken()
  using object = await loadObject(spec, {
    ...initial,
    ...(options.btf === undefined ? {} : { kernelTypes: readKernelTypes(options.btf) }),
    ...(options.program === undefined ? {} : { only: options.program }),
  }).catch(refusalOf)
  for (const warning of object.warnings) warn(warning)
  using links = new Owned()
  const attached = wishes.length === 0 ? [] : attachAll(object, wishes, links, options.pin !== undefined)
  if (options.pin !== undefined) pinAll(object, attached, options.pin)
  report(object, attached, token?.path, options)
  if (options.watch === true) {
    const { watch } = await import('../watching.ts')
    const { json = false, ping = false } = options
    await watch(object, { json, ping, until: interruption() })
  } else if (attached.length > 0 && options.pin === undefined) {
    note('attached until interrupted')
    await aborted(interruption())
  }
  return EXIT.ok
}

/** If the kernel does not let us, that is a refusal and has its own status. */
function refusalOf(error: unknown): never {
  if (!(error instanceof SyscallError) || !['EPERM', 'EACCES'].includes(error.errnoName)) throw error
  throw new DeniedError('The kernel refuses to load it', { cause: error, hint: error.hint })
}

interface Attached {
  readonly name: string
  readonly link: Link | StructOpsRegistration
}

/** Programs with a place to go, and struct_ops maps. UsageError: there is none. */
/** What has no link to pin stays by itself where all stays. */
function attachAll(object: LoadedObject, wishes: readonly Wish[], links: Owned, stays: boolean): Attached[] {
  const programs = object.spec.programs.filter(({ name }) => object.programs.has(name))
  const attached: Attached[] = placementsFor(programs, wishes).map(({ program, spec }: Placement) => ({
    name: program,
    link: links.add(attachProgram(object, program, spec)),
  }))
  if (wishes.some(({ program, spec }) => program === undefined && spec === 'auto'))
    for (const name of object.structOps.keys()) {
      const made = attachStructOpsMap(object, name)
      attached.push({ name, link: made })
      if (made instanceof Link || !stays) links.add(made)
      else note(`"${name}" is registered until its map's value is deleted: it was made without a link`)
    }
  if (attached.length === 0)
    throw new UsageError('No program of the object says where it attaches', {
      hint: 'Name the place: --attach xdp:DEVICE, tcx:DEVICE/ingress, netkit:DEVICE/primary, cgroup:PATH or netns:PATH',
    })
  return attached
}

/** All or nothing: a pin that fails takes those before it away again. */
function pinAll(object: LoadedObject, attached: readonly Attached[], directory: string): void {
  const made: string[] = []
  const pin = (one: { pin(path: string): void }, name: string): void => {
    // bpffs keeps names with dots for itself.
    const path = `${directory}/${name.replace(/^\./, '').replace(/[/.]/g, '_')}`
    one.pin(path)
    made.push(path)
  }
  const existed = existsSync(directory)
  mkdirSync(directory, { recursive: true })
  try {
    for (const [name, program] of object.programs) pin(program, name)
    for (const [name, map] of object.maps) pin(map, name)
    for (const { name, link } of attached) if (link instanceof Link) pin(link, `${name}_link`)
  } catch (error) {
    for (const path of made) rmSync(path)
    if (!existed) rmSync(directory, { recursive: true })
    throw error
  }
}

function report(
  object: LoadedObject,
  attached: readonly Attached[],
  tokenPath: string | undefined,
  { json, watch }: ObjLoadOptions,
): void {
  const programs = [...object.programs].map(([name, program]) => {
    const { id, type, tag, verifiedInsns } = program.info()
    return { name, id, type, tag, verifiedInsns, attached: attached.some(one => one.name === name) }
  })
  const maps = [...object.maps].map(([name, map]) => {
    const { id, type, maxEntries } = map.info()
    return { name, id, type, maxEntries }
  })
  if (json === true) {
    const loaded = { token: tokenPath ?? null, programs, maps }
    if (watch === true) printJson({ type: 'loaded', ...loaded }, 'compact')
    else printJson(loaded)
    return
  }
  print(tokenPath === undefined ? 'loaded with own capabilities' : `loaded with the token of ${tokenPath}`)
  print(
    ...columns([
      ...programs.map(one => [
        'program',
        one.name,
        one.type,
        `id ${one.id}`,
        `${one.verifiedInsns} instructions verified${one.attached ? ', attached' : ''}`,
      ]),
      ...maps.map(one => ['map', one.name, one.type, `id ${one.id}`, `${one.maxEntries} entries`]),
    ]),
  )
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    // Signals alone do not keep Node alive.
    const alive = setInterval(() => {}, 0x7fff_ffff)
    const end = (): void => {
      clearInterval(alive)
      resolve()
    }
    if (signal.aborted) end()
    else signal.addEventListener('abort', end)
  })
}
