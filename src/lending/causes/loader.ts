/**
 * Which loader a process has, and whether that can make tokens at all: by what its executable and
 * its libraries hold. What these say is only as good as the file: a program that nobody knows, or
 * that hides what it is, has no loader here.
 */
import { basename } from 'node:path'
import { BpftokenError } from '../../errors.ts'
import type { Fd } from '../../sys/fd.ts'
import { bytesInTime, LOOK_MS } from '../../sys/in-time.ts'
import type { ProcessHandle } from '../../sys/process.ts'
import { answers } from './answering.ts'
import type { Finding } from './finding.ts'
import type { MountTable } from './mount-table.ts'

export interface Loader {
  readonly name: 'libbpf' | 'cilium/ebpf' | 'aya'
  /** Undefined: the file does not tell. */
  readonly version: string | undefined
  /** Name of the file that it is in. */
  readonly file: string
  readonly makesTokens: boolean
}

interface Kind {
  readonly name: Loader['name']
  /** Of all that have it. */
  readonly mark: string
  readonly version: RegExp
  /** What only those hold that can make tokens; undefined: no version can. */
  readonly token: string | undefined
}

/** Measured: libbpf 1.1 to 1.8, cilium/ebpf 0.17 and 0.22; see docs/explain.md. */
const KINDS: readonly Kind[] = [
  {
    name: 'libbpf',
    // Of a message that all since 0.1 have.
    mark: 'libbpf: elf: ',
    version: /\0v([01]\.\d{1,2})\0/,
    token: 'LIBBPF_BPF_TOKEN_PATH',
  },
  {
    name: 'cilium/ebpf',
    mark: 'github.com/cilium/ebpf/internal/sys.',
    version: /\tgithub\.com\/cilium\/ebpf\tv(\d+\.\d+\.\d+)/,
    token: 'token insufficiently privileged',
  },
  { name: 'aya', mark: '/aya-obj-0.', version: /\/aya-(\d+\.\d+\.\d+)\/src\//, token: undefined },
]

const ELF = Buffer.from('\x7fELF', 'latin1')

/** Of an executable, or a library. Undefined: none that we know. Pure. */
export function loaderIn(file: string, bytes: Buffer): Loader | undefined {
  if (!bytes.subarray(0, ELF.length).equals(ELF)) return undefined
  const kind = KINDS.find(({ mark }) => bytes.includes(mark, 0, 'latin1'))
  if (kind === undefined) return undefined
  const version = kind.version.exec(bytes.toString('latin1'))?.[1]
  const makesTokens = kind.token !== undefined && bytes.includes(kind.token, 0, 'latin1')
  return { name: kind.name, version, file, makesTokens }
}

/** `libbpf 1.1 of libbpf.so.1.1.2` */
export function loaderText({ name, version, file }: Loader): string {
  return `${name}${version === undefined ? '' : ` ${version}`} of ${file}`
}

/** Larger files are not looked into: Node is one, and no loader. */
const MOST_BYTES = 64 * 1024 * 1024
const MOST_MAPS_BYTES = 4 * 1024 * 1024

/**
 * Of its libbpf.so, else of its executable. Undefined: none that we know, or it cannot be looked at.
 * `mounts`: the process's.
 */
export async function loaderOf(process: ProcessHandle, mounts: MountTable): Promise<Loader | undefined> {
  const may = (file: Fd): boolean => answers(file, mounts)
  try {
    const maps = (await bytesInTime(process, 'maps', MOST_MAPS_BYTES, LOOK_MS))?.toString('latin1') ?? ''
    const library = mappedFile(maps, /^libbpf\.so(\.|$)/)
    if (library !== undefined) {
      const range = `map_files/${library.range}`
      const bytes = await bytesInTime(process, range, MOST_BYTES, LOOK_MS, may)
      const found = bytes && loaderIn(library.name, bytes)
      if (found !== undefined) return found
    }
    const bytes = await bytesInTime(process, 'exe', MOST_BYTES, LOOK_MS, may)
    return bytes && loaderIn('its executable', bytes)
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
}

/** The first mapping of a file whose name is like that, by the text of /proc/PID/maps. Pure. */
export function mappedFile(maps: string, name: RegExp): { range: string; name: string } | undefined {
  for (const line of maps.split('\n')) {
    const at = line.indexOf('/')
    if (at < 0) continue
    const base = basename(line.slice(at).replace(/ \(deleted\)$/, ''))
    if (!name.test(base)) continue
    const range = line.slice(0, line.indexOf(' '))
    // In `map_files` numbers have no zeros in front.
    return { range: range.replace(/(^|-)0+(?=[0-9a-f])/g, '$1'), name: base }
  }
  return undefined
}

/** Undefined: it makes tokens, or is not known. Pure. */
export function oldLoader(loader: Loader | undefined): Finding | undefined {
  if (loader === undefined || loader.makesTokens) return undefined
  return {
    cause: 'old-loader',
    errno: 'EPERM',
    needed: 'a loader that makes tokens',
    found: `${loaderText(loader)}, which knows none`,
  }
}
