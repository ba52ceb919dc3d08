/**
 * Attaching to USDT probes: places that a program's authors marked, with arguments. `usdt-note.ts`
 * reads the marks; programs read the arguments by libbpf's usdt.bpf.h, whose maps are filled here.
 */
import { InputError, NotFoundError } from '../../errors.ts'
import type { Link } from '../link.ts'
import type { LoadedObject } from '../load/object.ts'
import type { BpfMap } from '../map.ts'
import { printableName } from '../printable.ts'
import { attachUprobeMulti } from './many.ts'
import { openExecutable, programFile } from './program-file.ts'
import { encodeUsdtSpec, type UsdtArgument, type UsdtNote, usdtArguments, usdtNotes } from './usdt-note.ts'

export interface UsdtTarget {
  /** A name without a slash is looked for as `programFile` does. */
  readonly path: string
  readonly provider: string
  readonly name: string
  /** Only in this process. Every process by default. */
  readonly pid?: number
  /** What bpf_usdt_cookie() gives to the program. */
  readonly cookie?: bigint
}

/**
 * The map of usdt.bpf.h that says where arguments are. By the number in it, a program finds them.
 */
const SPECS = '__bpf_usdt_specs'
const MAX_SHOWN = 10

/** Numbers in a map of specs, by what is there. They stay: places with the same words share one. */
const numbersIn = new WeakMap<BpfMap, Map<string, number>>()

/**
 * Attaches to every place of a probe: a link of many uprobes, so it wants a kernel since Linux 6.6,
 * and nothing beyond having loaded the program. Each place's semaphore is raised while it is
 * attached. Without the maps of usdt.bpf.h the program cannot ask for arguments, and `cookie` is
 * what bpf_get_attach_cookie() gives. NotFoundError: there is no such file or probe.
 * NotSupportedError: its arguments are in words that nobody here understands. The caller disposes
 * of the link.
 */
export function attachUsdt(object: LoadedObject, program: string, target: UsdtTarget): Link {
  const { provider, name, pid, cookie = 0n } = target
  const path = programFile(target.path)
  const file = openExecutable(path)
  const notes = usdtNotes(file)
  const places = notes.filter(note => note.provider === provider && note.name === name)
  if (places.length === 0) throw noProbe(path, target, notes)
  const specs = object.maps.get(SPECS)
  const numberOf = ({ args }: UsdtNote): bigint =>
    specs === undefined ? cookie : BigInt(specNumber(specs, usdtArguments(file.machine, args), cookie))
  return attachUprobeMulti(object.program(program), {
    path,
    offs: places.map(({ off }) => off),
    refCtrOffs: places.map(({ semaphoreOff }) => semaphoreOff),
    cookies: places.map(numberOf),
    ...(pid === undefined ? {} : { pid }),
  })
}

function noProbe(path: string, { provider, name }: UsdtTarget, notes: readonly UsdtNote[]): NotFoundError {
  const all = [...new Set(notes.map(note => printableName(`${note.provider}:${note.name}`)))]
  const shown = all.slice(0, MAX_SHOWN).join(', ')
  return new NotFoundError(`${path} has no USDT probe "${provider}:${name}"`, {
    context: { path, provider, name },
    hint:
      all.length === 0 ? 'It has none at all' : `It has: ${shown}${all.length > MAX_SHOWN ? ', ...' : ''}`,
  })
}

/** InputError: the map is full. */
function specNumber(map: BpfMap, args: readonly UsdtArgument[], cookie: bigint): number {
  const { valueBytes, maxEntries } = map.info()
  const spec = encodeUsdtSpec(valueBytes, args, cookie)
  const numbers = numbersIn.get(map) ?? new Map<string, number>()
  numbersIn.set(map, numbers)
  const text = Buffer.from(spec).toString('latin1')
  const known = numbers.get(text)
  if (known !== undefined) return known
  const number = numbers.size
  if (number >= maxEntries)
    throw new InputError(`Map "${SPECS}" has room for the arguments of ${maxEntries} different places`, {
      context: { map: SPECS, maxEntries },
      hint: 'Load the object with more entries in that map',
    })
  map.update(number, spec)
  numbers.set(text, number)
  return number
}
