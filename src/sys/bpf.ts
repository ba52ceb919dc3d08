/**
 * bpf(2), one function per command and nothing decided: attributes in kernel spelling, descriptors
 * as `Fd`.
 *
 * A pointer field is never set by number: the byte array it shall point at is given, and the addon
 * writes its address. Functions that can take long (`progLoad`, `btfLoad`, `progTestRun`, batches)
 * run on a worker thread. Failures are `SyscallError`s with `op` such as `BPF_MAP_CREATE`, except
 * where the doc says that an errno is an answer.
 */
import {
  bpf_attr_btf_load,
  bpf_attr_enable_stats,
  bpf_attr_get_id,
  bpf_attr_info,
  bpf_attr_iter_create,
  bpf_attr_link_create,
  bpf_attr_link_detach,
  bpf_attr_link_update,
  bpf_attr_map_batch,
  bpf_attr_map_create,
  bpf_attr_map_elem,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_bind_map,
  bpf_attr_prog_load,
  bpf_attr_prog_query,
  bpf_attr_prog_stream_read,
  bpf_attr_prog_test_run,
  bpf_attr_raw_tracepoint,
  bpf_attr_token_create,
  bpf_cmd,
} from '../uapi/bpf.ts'
import type { Fields, Struct, Values } from '../uapi/codec.ts'
import { ERRNO } from '../uapi/errno.ts'
import { check, failure } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

type Attr<S> = S extends Struct<infer F> ? Partial<Values<F>> : never
type Cmd = keyof typeof bpf_cmd
/** Byte arrays to point at, by pointer field. */
type Pointers<S> = S extends Struct<infer F> ? { [K in keyof F]?: Uint8Array | undefined } : never

function refsOf<F extends Fields>(
  layout: Struct<F>,
  attr: Uint8Array,
  pointers: object,
): (Uint8Array | number)[] {
  const refs: (Uint8Array | number)[] = []
  for (const [field, target] of Object.entries(pointers) as [string, Uint8Array | undefined][]) {
    if (target !== undefined) refs.push(attr, layout.fields[field]!.off, target)
  }
  return refs
}

/** The raw result or -errno; the attribute as the kernel left it is in `attr`. */
function raw(cmd: Cmd, attr: Uint8Array, refs: (Uint8Array | number)[] = []): number {
  return native().bpf(bpf_cmd[cmd], attr, ...refs)
}

function run<F extends Fields>(
  cmd: Cmd,
  layout: Struct<F>,
  values: Partial<Values<F>>,
  pointers: object = {},
  object?: string,
): number {
  const attr = layout.encode(values)
  return check('bpf', cmd, raw(cmd, attr, refsOf(layout, attr, pointers)), object)
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`)
}

// ---- maps ----

/**
 * Creates a map. The caller closes it. Errno by step: kernel-facts 3.2 (EPERM, EINVAL, ENOMEM,
 * EBADF for a bad token).
 */
export function mapCreate(attr: Attr<typeof bpf_attr_map_create>): Fd {
  return new Fd(run('BPF_MAP_CREATE', bpf_attr_map_create, attr))
}

// Element calls are the hot path: one attribute buffer, reused, since they are synchronous.
const elem = new Uint8Array(bpf_attr_map_elem.size)
const elemView = new DataView(elem.buffer)
const ENOENT = ERRNO['ENOENT']!
const { map_fd, key: KEY, value: VALUE, next_key: NEXT_KEY, flags: FLAGS } = bpf_attr_map_elem.fields

function element(cmd: number, fd: Fd, flags: number, refs: (Uint8Array | number)[]): number {
  map_fd.set(elemView, 0, fd.number)
  elemView.setBigUint64(FLAGS.off, BigInt(flags), true)
  return native().bpf(cmd, elem, ...refs)
}

/**
 * Copies the value of `key` (null for queues, stacks, bloom filters) into `value`, which must be as
 * long as the kernel writes; false: no such key.
 */
export function mapLookupElem(fd: Fd, key: Uint8Array | null, value: Uint8Array, flags = 0): boolean {
  map_fd.set(elemView, 0, fd.number)
  elemView.setBigUint64(FLAGS.off, BigInt(flags), true)
  const cmd = bpf_cmd.BPF_MAP_LOOKUP_ELEM
  const result = native().bpf(cmd, elem, elem, KEY.off, key, elem, VALUE.off, value)
  if (result === -ENOENT) return false
  if (result < 0) throw failure('bpf', 'BPF_MAP_LOOKUP_ELEM', result)
  return true
}

/**
 * Sets the value of `key` (null for queues and stacks). EEXIST and ENOENT by flags, E2BIG when
 * full.
 */
export function mapUpdateElem(fd: Fd, key: Uint8Array | null, value: Uint8Array, flags = 0): void {
  map_fd.set(elemView, 0, fd.number)
  elemView.setBigUint64(FLAGS.off, BigInt(flags), true)
  const result =
    key === null
      ? native().bpf(bpf_cmd.BPF_MAP_UPDATE_ELEM, elem, elem, VALUE.off, value)
      : native().bpf(bpf_cmd.BPF_MAP_UPDATE_ELEM, elem, elem, KEY.off, key, elem, VALUE.off, value)
  if (result < 0) throw failure('bpf', 'BPF_MAP_UPDATE_ELEM', result)
}

/** Removes `key`; false: no such key. */
export function mapDeleteElem(fd: Fd, key: Uint8Array): boolean {
  const result = element(bpf_cmd.BPF_MAP_DELETE_ELEM, fd, 0, [elem, KEY.off, key])
  if (result === -ENOENT) return false
  check('bpf', 'BPF_MAP_DELETE_ELEM', result)
  return true
}

/** Looks up and removes (key null for queues and stacks); false: nothing there. */
export function mapLookupAndDeleteElem(fd: Fd, key: Uint8Array | null, value: Uint8Array): boolean {
  const refs = key === null ? [] : [elem, KEY.off, key]
  const cmd = bpf_cmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM
  const result = element(cmd, fd, 0, [...refs, elem, VALUE.off, value])
  if (result === -ENOENT) return false
  check('bpf', 'BPF_MAP_LOOKUP_AND_DELETE_ELEM', result)
  return true
}

/** Writes the key after `key` (null: the first) into `next`; false: that was the last. */
export function mapGetNextKey(fd: Fd, key: Uint8Array | null, next: Uint8Array): boolean {
  const refs = key === null ? [] : [elem, KEY.off, key]
  const result = element(bpf_cmd.BPF_MAP_GET_NEXT_KEY, fd, 0, [...refs, elem, NEXT_KEY.off, next])
  if (result === -ENOENT) return false
  check('bpf', 'BPF_MAP_GET_NEXT_KEY', result)
  return true
}

type BatchCmd =
  | 'BPF_MAP_LOOKUP_BATCH'
  | 'BPF_MAP_LOOKUP_AND_DELETE_BATCH'
  | 'BPF_MAP_UPDATE_BATCH'
  | 'BPF_MAP_DELETE_BATCH'

/**
 * One batch step. `done`: ENOENT, the end of the map, which still brings `count` elements. ENOSPC:
 * a hash bucket did not fit.
 */
export async function mapBatch(
  cmd: BatchCmd,
  attr: Attr<typeof bpf_attr_map_batch>,
  pointers: Pointers<typeof bpf_attr_map_batch>,
): Promise<{ count: number; done: boolean }> {
  const bytes = bpf_attr_map_batch.encode(attr)
  const result = await native().later(
    'bpf',
    bpf_cmd[cmd],
    bytes,
    ...refsOf(bpf_attr_map_batch, bytes, pointers),
  )
  const done = result === -ENOENT
  if (!done) check('bpf', cmd, result)
  return { count: bpf_attr_map_batch.decode(bytes).count!, done }
}

/** A BPF_MAP_LOOKUP_BATCH that has room for the whole map: how many elements there were. */
export function mapLookupAll(fd: Fd, count: number, pointers: Pointers<typeof bpf_attr_map_batch>): number {
  const bytes = bpf_attr_map_batch.encode({ map_fd: fd.number, count })
  const refs = refsOf(bpf_attr_map_batch, bytes, pointers)
  const result = native().bpf(bpf_cmd.BPF_MAP_LOOKUP_BATCH, bytes, ...refs)
  if (result !== -ENOENT) check('bpf', 'BPF_MAP_LOOKUP_BATCH', result)
  return bpf_attr_map_batch.decode(bytes).count!
}

/**
 * From now on programs may read the map and bpf(2) may not write it. EBUSY: mapped writable. EPERM:
 * already frozen.
 */
export function mapFreeze(fd: Fd): void {
  run('BPF_MAP_FREEZE', bpf_attr_map_elem, { map_fd: fd.number })
}

// ---- programs and BTF ----

/** The result or -errno of BPF_PROG_LOAD: the verifier's answer is judged by the layer above. */
export async function progLoad(
  attr: Attr<typeof bpf_attr_prog_load>,
  pointers: Pointers<typeof bpf_attr_prog_load>,
  where: 'here' | 'on a thread' = 'on a thread',
): Promise<{ result: number; logTrueBytes: number }> {
  const bytes = bpf_attr_prog_load.encode(attr)
  const refs = refsOf(bpf_attr_prog_load, bytes, pointers)
  const result =
    where === 'here'
      ? raw('BPF_PROG_LOAD', bytes, refs)
      : await native().later('bpf', bpf_cmd.BPF_PROG_LOAD, bytes, ...refs)
  return { result, logTrueBytes: bpf_attr_prog_load.decode(bytes).log_true_size ?? 0 }
}

/** The result or -errno of BPF_BTF_LOAD; `attr.btf_size` is taken from `btf`. */
export function btfLoad(
  attr: Attr<typeof bpf_attr_btf_load>,
  btf: Uint8Array,
  log?: Uint8Array,
): Promise<number> {
  const bytes = bpf_attr_btf_load.encode({
    ...attr,
    btf_size: btf.length,
    ...(log === undefined ? {} : { btf_log_size: log.length }),
  })
  return native().later(
    'bpf',
    bpf_cmd.BPF_BTF_LOAD,
    bytes,
    ...refsOf(bpf_attr_btf_load, bytes, { btf, btf_log_buf: log }),
  )
}

/**
 * Runs a program once or `repeat` times; the attribute as the kernel left it. ENOTSUPP: this type
 * cannot be run so.
 */
export async function progTestRun(
  attr: Attr<typeof bpf_attr_prog_test_run>,
  pointers: Pointers<typeof bpf_attr_prog_test_run>,
): Promise<Attr<typeof bpf_attr_prog_test_run>> {
  const bytes = bpf_attr_prog_test_run.encode(attr)
  const refs = refsOf(bpf_attr_prog_test_run, bytes, pointers)
  const result = await native().later('bpf', bpf_cmd.BPF_PROG_TEST_RUN, bytes, ...refs)
  check('bpf', 'BPF_PROG_TEST_RUN', result)
  return bpf_attr_prog_test_run.decode(bytes)
}

/** Keeps `map` alive as long as the program. */
export function progBindMap(prog: Fd, map: Fd): void {
  run('BPF_PROG_BIND_MAP', bpf_attr_prog_bind_map, { prog_fd: prog.number, map_fd: map.number })
}

/**
 * What programs wrote to a stream, at most `into.length` bytes, taken out: how many; 0: nothing is
 * there. Since Linux 6.17. ENOENT: no such stream.
 */
export function progStreamRead(prog: Fd, stream_id: number, into: Uint8Array): number {
  const attr = { prog_fd: prog.number, stream_id, stream_buf_len: into.length }
  return run('BPF_PROG_STREAM_READ_BY_FD', bpf_attr_prog_stream_read, attr, { stream_buf: into })
}

/** Counts for as long as the descriptor is open, which the caller closes. EPERM: CAP_SYS_ADMIN. */
export function enableStats(type: number): Fd {
  return new Fd(run('BPF_ENABLE_STATS', bpf_attr_enable_stats, { type }))
}

// ---- attaching ----

/** Attaches without a link. EEXIST, EPERM, ESTALE by flags and target. */
export function progAttach(attr: Attr<typeof bpf_attr_prog_attach>, object?: string): void {
  run('BPF_PROG_ATTACH', bpf_attr_prog_attach, attr, {}, object)
}

/**
 * What is attached: the attribute as the kernel left it, with as many as there are in `count`.
 * ENOSPC: the arrays have no room, which is an answer.
 */
export function progQuery(
  attr: Attr<typeof bpf_attr_prog_query>,
  pointers: Pointers<typeof bpf_attr_prog_query>,
  object?: string,
): { attr: Attr<typeof bpf_attr_prog_query>; complete: boolean } {
  const bytes = bpf_attr_prog_query.encode(attr)
  const result = raw('BPF_PROG_QUERY', bytes, refsOf(bpf_attr_prog_query, bytes, pointers))
  const complete = result !== -ERRNO['ENOSPC']!
  if (complete) check('bpf', 'BPF_PROG_QUERY', result, object)
  return { attr: bpf_attr_prog_query.decode(bytes), complete }
}

/** Detaches what was attached without a link. ENOENT: it is not there. */
export function progDetach(attr: Attr<typeof bpf_attr_prog_attach>, object?: string): void {
  run('BPF_PROG_DETACH', bpf_attr_prog_attach, attr, {}, object)
}

/** Attaches to a raw tracepoint. The caller closes the link. ENOENT: no such tracepoint. */
export function rawTracepointOpen(name: string, prog: Fd, cookie = 0n): Fd {
  const attr = { prog_fd: prog.number, cookie }
  return new Fd(run('BPF_RAW_TRACEPOINT_OPEN', bpf_attr_raw_tracepoint, attr, { name: cString(name) }, name))
}

/** Makes a link. The caller closes it; unless pinned, that detaches the program. */
export function linkCreate(
  attr: Attr<typeof bpf_attr_link_create>,
  pointers: Pointers<typeof bpf_attr_link_create> = {},
  object?: string,
): Fd {
  return new Fd(run('BPF_LINK_CREATE', bpf_attr_link_create, attr, pointers, object))
}

/**
 * The same with a pointer to names, each of which has its own address: 14 at most, as the addon
 * writes so many.
 */
export function linkCreateByNames(
  attr: Attr<typeof bpf_attr_link_create>,
  pointers: Pointers<typeof bpf_attr_link_create>,
  field: 'kprobe_multi_syms',
  names: readonly string[],
  object: string,
): Fd {
  const list = new Uint8Array(names.length * 8)
  const bytes = bpf_attr_link_create.encode(attr)
  const refs = refsOf(bpf_attr_link_create, bytes, { ...pointers, [field]: list })
  for (const [i, name] of names.entries()) refs.push(list, i * 8, cString(name))
  return new Fd(check('bpf', 'BPF_LINK_CREATE', raw('BPF_LINK_CREATE', bytes, refs), object))
}

/** Swaps the program of a link. EPERM: `old_prog_fd` is not the present one. */
export function linkUpdate(attr: Attr<typeof bpf_attr_link_update>): void {
  run('BPF_LINK_UPDATE', bpf_attr_link_update, attr)
}

/** Detaches now, though the link object lives on. EOPNOTSUPP: not for this kind of link. */
export function linkDetach(link: Fd): void {
  run('BPF_LINK_DETACH', bpf_attr_link_detach, { link_fd: link.number })
}

/** A descriptor to read an iterator's output from. The caller closes it. */
export function iterCreate(link: Fd): Fd {
  return new Fd(run('BPF_ITER_CREATE', bpf_attr_iter_create, { link_fd: link.number }))
}

// ---- objects by path, id and descriptor ----

/**
 * Gives an object a name in a bpffs. EPERM: the path is not in one; EEXIST: taken; EINVAL: cannot
 * be pinned (a token).
 */
export function objPin(fd: Fd, path: string): void {
  run('BPF_OBJ_PIN', bpf_attr_obj, { bpf_fd: fd.number }, { pathname: cString(path) }, path)
}

/** Opens a pinned object; `file_flags` BPF_F_RDONLY or BPF_F_WRONLY. The caller closes it. */
export function objGet(path: string, fileFlags = 0): Fd {
  return new Fd(
    run('BPF_OBJ_GET', bpf_attr_obj, { file_flags: fileFlags }, { pathname: cString(path) }, path),
  )
}

type NextIdCmd =
  | 'BPF_PROG_GET_NEXT_ID'
  | 'BPF_MAP_GET_NEXT_ID'
  | 'BPF_BTF_GET_NEXT_ID'
  | 'BPF_LINK_GET_NEXT_ID'

/**
 * The next id in use, or undefined at the end. EPERM without CAP_SYS_ADMIN in the initial user
 * namespace.
 */
export function getNextId(cmd: NextIdCmd, startId: number): number | undefined {
  const bytes = bpf_attr_get_id.encode({ start_id: startId }, bpf_attr_get_id.fields.open_flags.off + 4)
  const result = raw(cmd, bytes)
  if (result === -ENOENT) return undefined
  check('bpf', cmd, result)
  return bpf_attr_get_id.decode(bytes).next_id
}

type FdByIdCmd =
  | 'BPF_PROG_GET_FD_BY_ID'
  | 'BPF_MAP_GET_FD_BY_ID'
  | 'BPF_BTF_GET_FD_BY_ID'
  | 'BPF_LINK_GET_FD_BY_ID'

/** Opens an object by id. A token serves for BTF only, since Linux 6.15. The caller closes it. */
export function getFdById(cmd: FdByIdCmd, id: number, attr: Attr<typeof bpf_attr_get_id> = {}): Fd {
  return new Fd(run(cmd, bpf_attr_get_id, { ...attr, start_id: id }, {}, `id ${id}`))
}

/**
 * Fills `info` with what the kernel says of the object; gives the bytes written. `pointers` are
 * `(offset in info, bytes to point at)`. EINVAL for a token before Linux 6.17.
 */
export function objGetInfoByFd(fd: Fd, info: Uint8Array, pointers: [number, Uint8Array][] = []): number {
  const bytes = bpf_attr_info.encode({ bpf_fd: fd.number, info_len: info.length })
  const refs: (Uint8Array | number)[] = [bytes, bpf_attr_info.fields.info.off, info]
  for (const [off, target] of pointers) refs.push(info, off, target)
  check('bpf', 'BPF_OBJ_GET_INFO_BY_FD', raw('BPF_OBJ_GET_INFO_BY_FD', bytes, refs))
  return bpf_attr_info.decode(bytes).info_len!
}

// ---- tokens ----

/**
 * Makes a BPF token from the root directory of a bpffs, opened without O_PATH. Since Linux 6.9.
 * Needs CAP_BPF in the user namespace of that bpffs, which must be the caller's own. The caller
 * closes it.
 *
 * EBADF: not open, or O_PATH. EINVAL: not the root, not a bpffs, or no tokens in this kernel.
 * EPERM: another user namespace, or no CAP_BPF. EOPNOTSUPP: the initial user namespace. ENOENT:
 * nothing delegated. Source: kernel/bpf/token.c.
 */
export function tokenCreate(bpffs: Fd, flags = 0, object?: string): Fd {
  return new Fd(run('BPF_TOKEN_CREATE', bpf_attr_token_create, { bpffs_fd: bpffs.number, flags }, {}, object))
}
