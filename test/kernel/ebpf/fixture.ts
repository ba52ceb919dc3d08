/**
 * What the kernel tests of src/ebpf share: leak checks, a private bpffs, a network namespace, small
 * programs.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  alu64,
  atomic,
  BpfMap,
  call,
  exit,
  type Insn,
  jumpIf,
  type Label,
  Link,
  label,
  ldMapFd,
  linkIds,
  type MapSpec,
  mapIds,
  mov64,
  Program,
  type ProgramSpec,
  programIds,
  R0,
  R1,
  R2,
  R10,
  store,
} from '../../../src/ebpf/index.ts'
import { SyscallError } from '../../../src/errors.ts'
import { Fd, openFds, traceFds } from '../../../src/sys/fd.ts'

/** Marks our objects among those of tests that run at the same time. */
const MARK = `t${process.pid.toString(36)}_`

export function makeMap(spec: MapSpec): BpfMap {
  return BpfMap.create({ ...spec, name: `${MARK}${spec.name ?? 'map'}` })
}

export function loadProgram(spec: ProgramSpec): Promise<Program> {
  return Program.load({ license: 'GPL', ...spec, name: `${MARK}${spec.name ?? 'prog'}` })
}

/** Ids of all objects in the kernel. */
function ids(): Set<string> {
  const all = new Set<string>()
  for (const [kind, list] of [
    ['map', mapIds()],
    ['program', programIds()],
    ['link', linkIds()],
  ] as const)
    for (const id of list) all.add(`${kind} ${id}`)
  return all
}

/** Of our maps and programs, and of links to our programs, those that are still in the kernel. */
function residue(): string[] {
  const left: string[] = []
  const ours = new Set<number>()
  const look = (kind: string, ids: Iterable<number>, isOurs: (id: number) => boolean): void => {
    for (const id of ids) {
      try {
        if (isOurs(id)) left.push(`${kind} ${id}`)
      } catch (error) {
        // Gone between the two calls.
        if (!(error instanceof SyscallError) || error.errnoName !== 'ENOENT') throw error
      }
    }
  }
  look('map', mapIds(), id => {
    using map = BpfMap.fromId(id)
    return map.info().name.startsWith(MARK)
  })
  look('program', programIds(), id => {
    using program = Program.fromId(id)
    const isOurs = program.info().name.startsWith(MARK)
    if (isOurs) ours.add(id)
    return isOurs
  })
  look('link', linkIds(), id => {
    using link = Link.fromId(id)
    return ours.has(link.info().programId)
  })
  return left
}

/** A test that fails when it leaves a descriptor, map, program or link behind. */
export function kernelTest(name: string, run: () => void | Promise<void>): void {
  const options = process.getuid?.() === 0 ? {} : { skip: 'needs root' }
  test(name, options, async () => {
    traceFds()
    const before = ids()
    await run()
    assert.deepEqual(openFds(), [], 'descriptors left open')
    // The kernel frees objects after a grace period; looked at by id only, see
    // scripts/residue.ts.
    const isNew = (): boolean => [...ids()].some(id => !before.has(id))
    for (let tries = 0; isNew() && tries < 200; tries++) await sleep(50)
    const left = isNew() ? residue() : []
    assert.deepEqual(left, [], 'objects left in the kernel')
  })
}

/** A bpffs of our own in a temporary directory; unmounted when disposed of. */
export function privateBpffs(): { path: string } & Disposable {
  const dir = mkdtempSync(path.join(tmpdir(), 'bpftoken-bpffs-'))
  execFileSync('mount', ['-t', 'bpf', 'none', dir])
  return {
    path: dir,
    [Symbol.dispose]() {
      execFileSync('umount', [dir])
      rmdirSync(dir)
    },
  }
}

const IN_NETNS = 'BPFTOKEN_TEST_IN_NETNS'

/**
 * Runs the whole test file again in a fresh network namespace with lo up, and this process only
 * waits for it.
 */
export function inOwnNetns(file: string): void {
  if (process.getuid?.() !== 0) return
  if (process.env[IN_NETNS] !== undefined) {
    execFileSync('ip', ['link', 'set', 'lo', 'up'])
    return
  }
  const child = spawnSync('unshare', ['--net', process.execPath, ...process.execArgv, file], {
    env: { ...process.env, [IN_NETNS]: '1' },
    stdio: 'inherit',
  })
  process.exit(child.status ?? 1)
}

/** Adds 1 to the u64 at index 0 of an `array` map, then returns `verdict`. */
export function countAndReturn(map: BpfMap, verdict: number): (Insn | Label)[] {
  return [
    store('u32', R10, -4, 0),
    ldMapFd(R1, map.fd.number),
    mov64(R2, R10),
    alu64('+=', R2, -4),
    call('map_lookup_elem'),
    jumpIf('==', R0, 0, 'out'),
    mov64(R1, 1),
    atomic('add', 'u64', R0, 0, R1),
    label('out'),
    mov64(R0, verdict),
    exit(),
  ]
}

export function counter(): BpfMap {
  return makeMap({ type: 'array', keyBytes: 4, valueBytes: 8, maxEntries: 1, name: 'counter' })
}

export function count(map: BpfMap): number {
  return Number(new DataView(map.lookup(0)!.buffer).getBigUint64(0, true))
}

/** A UDP socket on the loopback device, with its descriptor; closed when disposed of. */
export interface BoundUdp extends Disposable {
  readonly socket: Socket
  readonly fd: Fd
  readonly port: number
}

export async function boundUdp(): Promise<BoundUdp> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  // The socket stays Node's: this owner is released, never closed.
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
  const borrowed = new Fd(fd)
  const { port } = socket.address()
  return {
    socket,
    fd: borrowed,
    port,
    [Symbol.dispose]() {
      borrowed.release()
      socket.close()
    },
  }
}

/** Bytes of a native-endian u32. */
export function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer)
}

export function u64(value: bigint | number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt(value)]).buffer)
}

/** An assertion on a thrown SyscallError. */
export function errno(name: string): (error: unknown) => boolean {
  return error => {
    assert.ok(error instanceof SyscallError, String(error))
    assert.equal(error.errnoName, name, error.message)
    return true
  }
}
