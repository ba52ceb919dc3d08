/**
 * Limits of a process and of its cgroup that end a call which has all rights: descriptors and
 * memory. And RLIMIT_MEMLOCK, which loaders name, and which ends none since Linux 5.11.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { cgroup2Path } from '../../sys/proc-file.ts'
import { type ProcessHandle, readProc } from '../../sys/process.ts'
import { cgroupRoot } from '../recipient/cgroup.ts'
import type { Finding } from './finding.ts'

export interface Limits {
  /** RLIMIT_NOFILE; undefined: none. */
  readonly files: number | undefined
  /** Descriptors with numbers below that. Others, from before it was lowered, take no room. */
  readonly openFiles: number
  /** RLIMIT_MEMLOCK in bytes; undefined: none. */
  readonly memlock: number | undefined
  /** The cgroup with the least room of those that it is in; undefined: none has a limit. */
  readonly memory: MemoryLimit | undefined
}

export interface MemoryLimit {
  readonly cgroup: string
  readonly max: number
  readonly used: number
}

export function limitsOf(process: ProcessHandle): Limits {
  const text = readProc(process, 'limits')
  const files = limitIn(text, 'Max open files')
  const open = readdirSync(`/proc/${process.pid}/fd`)
  return {
    files,
    openFiles: files === undefined ? open.length : open.filter(fd => Number(fd) < files).length,
    memlock: limitIn(text, 'Max locked memory'),
    memory: memoryLimit(readProc(process, 'cgroup')),
  }
}

/** The soft limit of a line of /proc/PID/limits; undefined: unlimited. Pure. */
export function limitIn(text: string, name: string): number | undefined {
  const line = text.split('\n').find(one => one.startsWith(`${name} `))
  const word = line?.slice(name.length).trim().split(/ +/)[0]
  return word === undefined || word === 'unlimited' ? undefined : Number(word)
}

const CGROUP1_MEMORY = '/sys/fs/cgroup/memory'

/** Of version 2, or of version 1 where that has the memory. */
function memoryLimit(text: string): MemoryLimit | undefined {
  const root = cgroupRoot()
  const path = cgroup2Path(text)
  const old = text
    .split('\n')
    .find(line => /^\d+:(.*,)?memory(,.*)?:/.test(line))
    ?.replace(/^\d+:[^:]*:/, '')
  const levels = [
    ...(root === undefined || path === undefined
      ? []
      : upFrom(path).map(at => read(root, at, 'memory.max', 'memory.current'))),
    ...(old === undefined
      ? []
      : upFrom(old).map(at => read(CGROUP1_MEMORY, at, 'memory.limit_in_bytes', 'memory.usage_in_bytes'))),
  ].filter(one => one !== undefined)
  return levels.sort((a, b) => a.max - a.used - (b.max - b.used))[0]
}

/** `/a/b`, `/a`, `/` */
function upFrom(path: string): string[] {
  const names = path.split('/').filter(Boolean)
  return [...names.keys()].map(i => `/${names.slice(0, names.length - i).join('/')}`).concat('/')
}

function read(root: string, path: string, most: string, now: string): MemoryLimit | undefined {
  try {
    const numberIn = (file: string): number | undefined =>
      decimal(readFileSync(join(root, path, file), 'latin1'))
    const [max, used] = [numberIn(most), numberIn(now)]
    // Version 1 says nearly all of 64 bits where there is no limit.
    if (max === undefined || used === undefined || max >= Number.MAX_SAFE_INTEGER) return undefined
    return { cgroup: path, max, used }
  } catch {
    return undefined
  }
}

function decimal(text: string): number | undefined {
  const word = text.trim()
  return /^\d{1,20}$/.test(word) ? Number(word) : undefined
}

/** Undefined: there is room for one more. Pure. */
export function fullOfDescriptors({ files, openFiles }: Limits): Finding | undefined {
  return files === undefined || openFiles < files ? undefined : descriptorFinding(files, openFiles)
}

function descriptorFinding(files: number | undefined, openFiles: number): Finding {
  return {
    cause: 'descriptor-limit',
    errno: 'EMFILE',
    needed: 'a free descriptor, and one more for a token',
    found: `RLIMIT_NOFILE ${files ?? 'unlimited'}, and ${openFiles} descriptors open below it`,
  }
}

/** What an errno that a call had says of limits; undefined: nothing. Pure. */
export function limitBehind(errno: string, { files, openFiles, memory }: Limits): Finding | undefined {
  if (errno === 'EMFILE') return descriptorFinding(files, openFiles)
  if (errno !== 'ENOMEM') return undefined
  return {
    cause: memory === undefined ? 'memory' : 'memory-limit',
    errno: 'ENOMEM',
    needed: 'memory for the object',
    found:
      memory === undefined
        ? 'no limit of a cgroup: the machine has too little, or the request is for too much'
        : `cgroup ${memory.cgroup} may have ${memory.max} bytes, and has ${memory.used} now`,
  }
}

/** Of a refusal for want of rights: what loaders make of it. Undefined: nothing to say. Pure. */
export function memlockNote({ memlock }: Limits): string | undefined {
  return memlock === undefined
    ? undefined
    : `RLIMIT_MEMLOCK is ${memlock} bytes, and plays no part since Linux 5.11, whatever a loader says`
}
