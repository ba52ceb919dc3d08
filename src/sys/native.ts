/**
 * The addon and its surface: named system calls, each giving its result or -errno.
 *
 * Only `src/sys` imports this. `use()` is the seam where unit tests put a fake.
 */
import { loadAddon } from './prebuilt.ts'

type Result = number
type Bytes = Uint8Array
/**
 * Addresses for the kernel: (bytes to write into, offset in them, bytes to point at), flattened.
 */
type Refs = (Bytes | number | null)[]

export interface Native {
  bpf(cmd: number, attr: Bytes, ...refs: Refs): Result
  close(fd: number): Result
  close_range(first: number, last: number, flags: number): Result
  connect(fd: number, address: Bytes): Result
  flock(fd: number, operation: number): Result
  fsconfig(fd: number, cmd: number, key: string | null, value: string | null, aux: number): Result
  fsmount(fd: number, flags: number, attrs: number): Result
  fsopen(fs: string, flags: number): Result
  fspick(dirfd: number, path: string, flags: number): Result
  getsockopt(fd: number, level: number, name: number, value: Bytes, length: Bytes): Result
  ioctl(fd: number, request: number, arg: Bytes | null): Result
  keyctl(operation: number, name: string | null): Result
  listmount(request: Bytes, ids: Bytes, count: number, flags: number): Result
  mount_setattr(dirfd: number, path: string, flags: number, attr: Bytes): Result
  move_mount(fromFd: number, from: string, toFd: number, to: string, flags: number): Result
  open_tree(dirfd: number, path: string, flags: number): Result
  openat2(dirfd: number, path: string, how: Bytes): Result
  perf_event_open(
    attr: Bytes,
    pid: number,
    cpu: number,
    groupFd: number,
    flags: number,
    ...refs: Refs
  ): Result
  pidfd_getfd(pidfd: number, fd: number, flags: number): Result
  pidfd_open(pid: number, flags: number): Result
  pidfd_send_signal(pidfd: number, signal: number, info: null, flags: number): Result
  read(fd: number, into: Bytes): Result
  sendto(fd: number, data: Bytes, flags: number, address: Bytes): Result
  setsockopt(fd: number, level: number, name: number, value: Bytes): Result
  socket(domain: number, type: number, protocol: number): Result
  statmount(request: Bytes, out: Bytes, flags: number): Result
  statx(dirfd: number, path: string, flags: number, mask: number, out: Bytes): Result
  timerfd_create(clock: number, flags: number): Result
  timerfd_settime(fd: number, flags: number, value: Bytes, old: Bytes | null): Result
  umount2(path: string, flags: number): Result

  /** The same calls on a worker thread. */
  later(call: string, ...args: unknown[]): Promise<Result>
  /** The same on a thread of its own, which does not keep the event loop alive. */
  aside(call: string, ...args: unknown[]): Promise<Result>
  mmap(
    fd: number,
    length: number,
    prot: number,
    flags: number,
    off: number,
    address: number,
  ): ArrayBuffer | Result
  munmap(mapping: ArrayBuffer): void
  mappingAddress(mapping: ArrayBuffer): bigint | undefined
  pollStart(fd: number, ready: (events: number) => void): unknown
  pollStop(handle: unknown): void
  pollKeepAlive(handle: unknown, keeps: boolean): void
  socketpair(): [number, number] | Result
  sendFds(fd: number, data: Bytes, fds: number[]): Result
  recvFds(fd: number, data: Bytes): [number, ...number[]] | Result
  /** On a worker thread: pwrite(2) and then fdatasync(2). */
  writeSynced(fd: number, bytes: Bytes, offset: number): Promise<Result>
  interfaceIndex(name: string): Result
  /**
   * Of each thread of each process, on a worker thread: the numbers of the process and of the thread,
   * of its user namespace and of its other one; 0: we are not told. Processes of the user namespace
   * `except` are left out.
   */
  taskNamespaces(kind: 'mnt' | 'net', except: number): Promise<Float64Array | Result>
}

let loaded: Native | undefined

/** The addon, loaded when it is first needed. */
export function native(): Native {
  loaded ??= loadAddon() as Native
  return loaded
}

/** Unit tests only: replaces the addon; `undefined` brings the real one back. */
export function use(fake: Native | undefined): void {
  loaded = fake
}
