/**
 * BTF objects: type information that lives in the kernel, for maps and programs that refer to it.
 */
import { SyscallError } from '../../errors.ts'
import { btfLoad, getFdById, objGetInfoByFd } from '../../sys/bpf.ts'
import { failure } from '../../sys/failure.ts'
import { Fd } from '../../sys/fd.ts'
import { bpf_btf_info, bpf_map_flags } from '../../uapi/bpf.ts'
import { BPF_LOG_LEVEL1 } from '../../uapi/constants.ts'
import { expectKind } from '../object-kind.ts'
import { nameFrom } from '../object-name.ts'
import { explain } from '../refusal.ts'
import type { Need } from '../rights.ts'
import { chooseToken, type TokenChoice } from '../token.ts'

export interface BtfObjectInfo {
  id: number
  /** `vmlinux` or a module's name; empty for BTF of programs. */
  name: string
  /** Whether it is the kernel's own or a module's. */
  kernel: boolean
  sizeBytes: number
}

const LOG_BYTES = 64 * 1024
const NAME_BYTES = 64

/**
 * Whether a token can lend btf_get_fd_by_id: Linux 6.15. A kernel that looks at the token finds that
 * it is none. Needs no right.
 */
export function opensTypesByToken(): boolean {
  const attr = { open_flags: bpf_map_flags.BPF_F_TOKEN_FD, fd_by_id_token_fd: -1 }
  try {
    getFdById('BPF_BTF_GET_FD_BY_ID', 1, attr).close()
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    if (error.errnoName === 'EBADF') return true
    if (error.errnoName === 'EINVAL') return false
    throw error
  }
  return true
}

/** BTF in the kernel, by an open descriptor. Whoever made the object closes it. */
export class BtfObject implements Disposable {
  readonly fd: Fd

  private constructor(fd: Fd) {
    this.fd = fd
  }

  /**
   * Gives raw BTF to the kernel: BPF_BTF_LOAD, since Linux 4.18. Needs CAP_BPF in the token's user
   * namespace or, without a token, in the initial one. EPERM names the missing right or capability
   * as hint; EINVAL carries the end of the kernel's log as hint and all of it as `context.log`. The
   * caller disposes of it.
   */
  static async load(btf: Uint8Array, options: { token?: TokenChoice } = {}): Promise<BtfObject> {
    const token = chooseToken(options.token)
    const attr =
      token === undefined ? {} : { btf_flags: bpf_map_flags.BPF_F_TOKEN_FD, btf_token_fd: token.fd.number }
    let result = await btfLoad(attr, btf)
    if (result >= 0) return new BtfObject(new Fd(result))
    // Asked again with a log: writing one costs more than loading, and most BTF is good.
    const buffer = new Uint8Array(LOG_BYTES)
    result = await btfLoad({ ...attr, btf_log_level: BPF_LOG_LEVEL1 }, btf, buffer)
    if (result >= 0) return new BtfObject(new Fd(result))
    const error = failure('bpf', 'BPF_BTF_LOAD', result)
    const object = `BTF of ${btf.length} bytes`
    const log = nameFrom(buffer).trimEnd()
    if (log === '') throw explain(error, object, { cmd: 'btf_load' }, token)
    const { call, op, errno, errnoName } = error
    throw new SyscallError(
      { call, op, errno, errnoName, object },
      { context: { object, log }, hint: `The kernel says: ${log.split('\n').at(-1)}` },
    )
  }

  /** Takes ownership of a BTF descriptor. TypeError: it is something else. */
  static fromFd(fd: Fd): BtfObject {
    return new BtfObject(expectKind(fd, 'BTF'))
  }

  /**
   * Opens BTF by id. Needs CAP_SYS_ADMIN in the initial user namespace or, since Linux 6.15, in
   * that of a token that lends btf_get_fd_by_id. ENOENT: no such BTF. The caller disposes of it.
   */
  static fromId(id: number, options: { token?: TokenChoice } = {}): BtfObject {
    const token = chooseToken(options.token)
    const need: Need = { cmd: 'btf_get_fd_by_id' }
    try {
      return new BtfObject(
        token?.covers(need)
          ? getFdById('BPF_BTF_GET_FD_BY_ID', id, {
              open_flags: bpf_map_flags.BPF_F_TOKEN_FD,
              fd_by_id_token_fd: token.fd.number,
            })
          : getFdById('BPF_BTF_GET_FD_BY_ID', id),
      )
    } catch (error) {
      throw explain(error, `BTF ${id}`, need, token)
    }
  }

  /** BPF_OBJ_GET_INFO_BY_FD; needs no capability. */
  info(): BtfObjectInfo {
    const { bytes, name } = this.#read()
    const info = bpf_btf_info.decode(bytes)
    return {
      id: info.id!,
      name: nameFrom(name),
      kernel: info.kernel_btf !== 0,
      sizeBytes: info.btf_size!,
    }
  }

  /** The raw BTF, as `Btf.parse` takes it. */
  raw(): Uint8Array {
    const data = new Uint8Array(this.info().sizeBytes)
    this.#read(data)
    return data
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #read(data?: Uint8Array): { bytes: Uint8Array; name: Uint8Array } {
    const name = new Uint8Array(NAME_BYTES)
    const bytes = bpf_btf_info.encode({ btf_size: data?.length ?? 0, name_len: name.length })
    const pointers: [number, Uint8Array][] = [[bpf_btf_info.fields.name.off, name]]
    if (data !== undefined) pointers.push([bpf_btf_info.fields.btf.off, data])
    objGetInfoByFd(this.fd, bytes, pointers)
    return { bytes, name }
  }
}
