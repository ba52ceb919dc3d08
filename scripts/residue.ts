/**
 * What tests may leave behind on this machine, as a set of lines to compare before and after.
 *
 * Each line names one thing in a way that does not change while it exists. Nothing here needs root,
 * but without it less can be seen.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { getFdById, getNextId, objGetInfoByFd } from '../src/sys/bpf.ts'
import { parseMountInfo } from '../src/sys/mountinfo.ts'
import { bpf_link_info, bpf_map_info, bpf_prog_info } from '../src/uapi/bpf.ts'

/** Set in the environment of test processes, so that those they leave behind are known. */
export const RUN_VARIABLE = 'BPFTOKEN_TEST_RUN'

/**
 * How long the kernel may take to free what nobody holds any more: it waits for RCU grace periods.
 */
const SETTLE_MS = 30_000

/** Names of our own programs, as the kernel cuts them. */
const OURS: ReadonlySet<string> = new Set([
  'bpftoken-launch',
  'bpftoken-run',
  'bpftoken-execut',
  'bpftoken-inside',
  'bpftoken-hold',
])

export type Snapshot = ReadonlySet<string>

export function snapshot(): Snapshot {
  return new Set([
    ...processLines(),
    ...kernelObjects('prog'),
    ...kernelObjects('map'),
    ...kernelObjects('link'),
    ...filesUnder('/sys/fs/bpf').map(path => `pin ${path}`),
    ...entries(tmpdir())
      .filter(name => name.startsWith('bpftoken-'))
      .map(name => `temporary directory ${tmpdir()}/${name}`),
  ])
}

/** What is there now and was not before; waits until it is gone, or for `settleMs`. */
export async function residue(before: Snapshot, settleMs = SETTLE_MS): Promise<string[]> {
  const deadline = Date.now() + settleMs
  for (;;) {
    const left = [...snapshot()].filter(line => !before.has(line))
    if (left.length === 0) return left
    if (Date.now() > deadline) return left.flatMap(line => described(line) ?? [])
    await sleep(50)
  }
}

/**
 * The line with name and type of a kernel object; undefined for what has gone meanwhile or is not
 * ours.
 */
function described(line: string): string | undefined {
  const [, kind, id] = /^(prog|map|link) (\d+)$/.exec(line) ?? []
  if (kind === undefined) return line
  const object = attempt(() => describe(kind as ObjectKind, Number(id)))
  // systemd replaces the filters of its units at any time.
  return object === undefined || object.startsWith('sd_') ? undefined : `${line} ${object}`
}

/**
 * Mounts that delegate and network namespaces, each known by a process in it; and processes of our
 * own.
 */
function processLines(): string[] {
  const lines = new Set<string>()
  const seen = new Set<string>()
  for (const pid of entries('/proc').filter(name => /^\d+$/.test(name))) {
    const dir = `/proc/${pid}`
    const command = attempt(() => readFileSync(`${dir}/comm`, 'utf8').trim())
    if (OURS.has(command ?? '') || (Number(pid) !== process.pid && isOfRun(dir)))
      lines.add(`process ${pid} ${command}`)
    const net = attempt(() => readlinkSync(`${dir}/ns/net`))
    if (net !== undefined) lines.add(`network namespace ${net}`)
    const mnt = attempt(() => readlinkSync(`${dir}/ns/mnt`))
    if (mnt === undefined || seen.has(mnt)) continue
    seen.add(mnt)
    for (const mount of parseMountInfo(attempt(() => readFileSync(`${dir}/mountinfo`, 'utf8')) ?? '', 'bpf'))
      lines.add(`bpffs ${mount.device} at ${mount.path} in ${mnt}`)
  }
  return [...lines]
}

function isOfRun(dir: string): boolean {
  const run = process.env[RUN_VARIABLE]
  if (run === undefined) return false
  const environment = attempt(() => readFileSync(`${dir}/environ`, 'utf8')) ?? ''
  return environment.split('\0').includes(`${RUN_VARIABLE}=${run}`)
}

type ObjectKind = 'prog' | 'map' | 'link'

/**
 * Ids only. To open a prog_array by its id while the kernel is still freeing it keeps it for ever:
 * its contents are then cleared twice, and one of the two references that this takes is never given
 * back (kernel/bpf/arraymap.c, prog_array_map_clear; seen on Linux 6.18).
 */
function kernelObjects(kind: ObjectKind): string[] {
  const command = `BPF_${kind.toUpperCase() as 'PROG' | 'MAP' | 'LINK'}_GET_NEXT_ID` as const
  const lines: string[] = []
  if (process.geteuid?.() !== 0) return lines
  for (let id = getNextId(command, 0); id !== undefined; id = getNextId(command, id))
    lines.push(`${kind} ${id}`)
  return lines
}

/** Name and type. */
function describe(kind: ObjectKind, id: number): string {
  using fd = getFdById(`BPF_${kind.toUpperCase() as 'PROG' | 'MAP' | 'LINK'}_GET_FD_BY_ID`, id)
  const layout = { prog: bpf_prog_info, map: bpf_map_info, link: bpf_link_info }[kind]
  const bytes = new Uint8Array(layout.size)
  objGetInfoByFd(fd, bytes)
  const info = layout.decode(bytes) as { type?: number; name?: Uint8Array }
  const name = Buffer.from(info.name ?? [])
    .toString()
    .replace(/\0.*$/s, '')
  return `${name}(type ${info.type})`
}

function filesUnder(dir: string): string[] {
  return (attempt(() => readdirSync(dir, { withFileTypes: true })) ?? []).flatMap(entry => {
    const path = `${dir}/${entry.name}`
    return entry.isDirectory() ? [path, ...filesUnder(path)] : [path]
  })
}

function entries(dir: string): string[] {
  return attempt(() => readdirSync(dir)) ?? []
}

/** undefined for what vanished while we looked, or is not ours to see. */
function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    return undefined
  }
}
