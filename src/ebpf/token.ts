/**
 * BPF tokens: making one from a delegated bpffs, reading what it allows, and finding the right one.
 *
 * A token is never opened again by way of /proc/self/fd: the kernel gives a file without its token,
 * and using that one crashes the machine (seen on every kernel from 6.12 to 7.3). Pass the
 * descriptor.
 */
import { readFileSync } from 'node:fs'
import { SyscallError } from '../errors.ts'
import { objGetInfoByFd, tokenCreate } from '../sys/bpf.ts'
import { failure } from '../sys/failure.ts'
import type { Fd } from '../sys/fd.ts'
import { open } from '../sys/open.ts'
import { procFields } from '../sys/proc-file.ts'
import { bpf_token_info } from '../uapi/bpf.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import { DEFAULT_BPFFS } from '../uapi/kernel-paths.ts'
import { type MissingRight, missingIn, type Need, type TokenRights } from './rights.ts'

export { DEFAULT_BPFFS }

const PATH_MAX = 4096
const ALL = 0xffff_ffff_ffff_ffffn

/**
 * What a command's `token` may be: undefined takes the one that `defaultToken` finds, null takes
 * none.
 */
export type TokenChoice = Token | null | undefined

/** A BPF token. Whoever made it closes it; programs and maps made with it live on. */
export class Token implements Disposable {
  readonly fd: Fd
  /** The bpffs it was made from; undefined for one that was received. */
  readonly path: string | undefined
  #rights: TokenRights | undefined

  /** Takes ownership of a token's descriptor, for example one received over a socket. */
  constructor(fd: Fd, path?: string) {
    this.fd = fd
    this.path = path
  }

  /**
   * Makes a token from the bpffs mounted at `path`: openat2(2), then BPF_TOKEN_CREATE. Since Linux
   * 6.9. Needs CAP_BPF in the user namespace of that bpffs, which must be the caller's own;
   * CAP_SYS_ADMIN is no substitute.
   *
   * ENOENT: no such path, or nothing is delegated there. EINVAL: not the root of a bpffs. EPERM:
   * another user namespace's bpffs, or no CAP_BPF. EOPNOTSUPP: the initial user namespace. The
   * caller disposes of it.
   */
  static create(path: string): Token {
    using root = openBpffs(path)
    return new Token(tokenCreate(root, 0, path), path)
  }

  /**
   * Its four masks. BPF_OBJ_GET_INFO_BY_FD since Linux 6.17, before that the text of fdinfo. No
   * capability is needed. Copied when the token was made, they never change. A mask of `any` in
   * fdinfo reads as all 64 bits.
   */
  info(): TokenRights {
    this.#rights ??= readRights(this.fd)
    return this.#rights
  }

  /** Whether its masks allow the command. Capabilities of the caller are another matter. */
  covers(need: Need): boolean {
    return missingRights(this, need).length === 0
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Which rights the token lacks for the command, in the kernel's words; empty when it covers it. */
export function missingRights(token: Token, need: Need): MissingRight[] {
  return missingIn(token.info(), need)
}

function openBpffs(path: string): Fd {
  if (Buffer.byteLength(path) >= PATH_MAX)
    throw failure('openat2', 'openat2', -ERRNO['ENAMETOOLONG']!, 'the bpffs path')
  try {
    return open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC)
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    const { call, op, errno, errnoName } = error
    throw new SyscallError(
      { call, op, errno, errnoName, object: path },
      { context: { object: path }, hint: 'Name the directory where a delegated bpffs is mounted' },
    )
  }
}

function readRights(fd: Fd): TokenRights {
  const info = new Uint8Array(bpf_token_info.size)
  try {
    objGetInfoByFd(fd, info)
  } catch (error) {
    // Until Linux 6.17 is the floor: a token has no info there.
    if (!(error instanceof SyscallError) || error.errnoName !== 'EINVAL') throw error
    return parseTokenFdinfo(readFileSync(`/proc/self/fdinfo/${fd.number}`, 'utf8'))
  }
  const masks = bpf_token_info.decode(info)
  return {
    cmds: masks.allowed_cmds!,
    maps: masks.allowed_maps!,
    progs: masks.allowed_progs!,
    attachs: masks.allowed_attachs!,
  }
}

/**
 * The `allowed_*` lines of a token's fdinfo (kernel/bpf/token.c, bpf_token_show_fdinfo). A missing
 * line allows nothing.
 */
export function parseTokenFdinfo(text: string): TokenRights {
  const fields = procFields(text)
  const mask = (name: string): bigint => {
    const value = fields.get(`allowed_${name}`) ?? ''
    if (value === 'any') return ALL
    return /^0x[0-9a-f]{1,16}$/.test(value) ? BigInt(value) : 0n
  }
  return { cmds: mask('cmds'), maps: mask('maps'), progs: mask('progs'), attachs: mask('attachs') }
}

/**
 * Finds a token as libbpf does (src/libbpf.c, bpf_object_prepare_token). `path`, or else the
 * variable LIBBPF_BPF_TOKEN_PATH, names a bpffs, and then any failure is thrown; either one empty
 * means: no token. With neither, /sys/fs/bpf is tried and any failure is quiet: undefined. The
 * caller disposes of it.
 *
 * This is the one place of the library that reads the environment; `environment` replaces it.
 */
export function findToken(
  options: { path?: string | undefined; environment?: NodeJS.ProcessEnv } = {},
): Token | undefined {
  const named = options.path ?? (options.environment ?? process.env)['LIBBPF_BPF_TOKEN_PATH']
  if (named === '') return undefined
  if (named !== undefined) return Token.create(named)
  try {
    return Token.create(DEFAULT_BPFFS)
  } catch (error) {
    if (error instanceof SyscallError) return undefined
    throw error
  }
}

let found: { token: Token | undefined } | undefined

/**
 * The token that commands take when they are given none: `findToken()`, once per process. Its owner
 * is this module, until `forgetDefaultToken`. A failure that `findToken` throws is thrown each
 * time.
 */
export function defaultToken(): Token | undefined {
  if (found === undefined || found.token?.fd.closed) found = { token: findToken() }
  return found.token
}

/**
 * Closes the default token, which otherwise keeps its bpffs busy, and looks again when next asked.
 */
export function forgetDefaultToken(): void {
  found?.token?.close()
  found = undefined
}

/** The token for one command. */
export function chooseToken(choice: TokenChoice): Token | undefined {
  return choice === null ? undefined : (choice ?? defaultToken())
}
