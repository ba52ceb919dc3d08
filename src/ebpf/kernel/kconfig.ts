/**
 * Configuration values for programs: `extern int CONFIG_HZ __kconfig` and the like, as bytes of the
 * map `.kconfig`.
 *
 * Rules as in libbpf (src/libbpf.c, set_kcfg_value_tri, _str and _num), so that an object reads the
 * same values.
 */
import { readFileSync } from 'node:fs'
import { release, version } from 'node:os'
import { gunzipSync } from 'node:zlib'
import { FormatError, NotFoundError, NotSupportedError } from '../../errors.ts'
import { findEnums } from '../btf/enums.ts'
import type { ExternSpec, KconfigField } from '../object/externs.ts'
import { kernelBtf } from './btf.ts'
import { hasSyscallWrapper } from './kallsyms.ts'

/**
 * Raw values by option, with the quotes of strings: `CONFIG_HZ` to `250`, `CONFIG_LOCALVERSION` to
 * `"-x"`.
 */
export type KconfigValues = ReadonlyMap<string, string>

/** What the variables LINUX_* stand for. */
export interface KconfigFacts {
  /** As KERNEL_VERSION(a, b, c). */
  readonly kernelVersion: number
  readonly hasSyscallWrapper: boolean
  readonly hasBpfCookie: boolean
}

/** The part of an ExternSpec that is needed; each with a field. */
export type KconfigExtern = Pick<ExternSpec, 'name' | 'weak'> & { readonly field?: KconfigField }

const FORMAT = 'kernel configuration'
const TRISTATE: Readonly<Record<string, number>> = { n: 0, y: 1, m: 2 }
const MAX_U64 = 2n ** 64n - 1n
const NUMBER = /^(-?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i

function bad(name: string, message: string): FormatError {
  return new FormatError(FORMAT, `${name} ${message}`, { context: { option: name } })
}

/**
 * Reads a kernel's `.config`. Pure. Of an option that is there twice the first counts. FormatError:
 * an option without value.
 */
export function parseKconfig(text: string): Map<string, string> {
  const values = new Map<string, string>()
  for (const line of text.split('\n')) {
    if (!line.startsWith('CONFIG_')) continue
    const sep = line.indexOf('=')
    const name = sep === -1 ? line : line.slice(0, sep)
    const value = sep === -1 ? '' : line.slice(sep + 1)
    if (value === '') throw bad(name, 'has no value')
    if (!values.has(name)) values.set(name, value)
  }
  return values
}

/**
 * The running kernel's configuration: /boot/config-RELEASE, or else /proc/config.gz.
 * NotSupportedError: neither can be read. Needs no capability.
 */
export function readKconfig(): Map<string, string> {
  for (const path of [`/boot/config-${release()}`, '/proc/config.gz']) {
    let bytes: Buffer
    try {
      bytes = readFileSync(path)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') continue
      throw error
    }
    const zipped = bytes[0] === 0x1f && bytes[1] === 0x8b
    return parseKconfig((zipped ? gunzipSync(bytes) : bytes).toString('utf8'))
  }
  throw new NotSupportedError('The configuration of this kernel cannot be read', {
    context: { paths: `/boot/config-${release()}, /proc/config.gz` },
    hint: 'Give the values when loading, or run a kernel with CONFIG_IKCONFIG_PROC',
  })
}

/**
 * The contents of the map `.kconfig`. `values` may be a function, which is called only if an option
 * CONFIG_* is wanted; `facts` are those of the running kernel by default, and with them given this
 * is pure. NotFoundError: an option that is not weak has no value. FormatError: a value does not
 * fit the variable's type.
 */
export function encodeKconfig(
  externs: readonly KconfigExtern[],
  values: KconfigValues | (() => KconfigValues),
  facts: KconfigFacts = kernelFacts(),
): Uint8Array {
  let read: KconfigValues | undefined
  const rawValue = (name: string) => {
    read ??= typeof values === 'function' ? values() : values
    return read.get(name)
  }
  const ends = externs.map(({ field }) => (field === undefined ? 0 : field.off + field.sizeBytes))
  const bytes = new Uint8Array(Math.max(0, ...ends))
  for (const { name, weak, field } of externs) {
    if (field === undefined) throw bad(name, 'is not a configuration value')
    const at = bytes.subarray(field.off, field.off + field.sizeBytes)
    if (name.startsWith('CONFIG_')) {
      const value = rawValue(name)
      if (value !== undefined) setValue(name, field, at, value)
      else if (!weak) throw missing(name)
      continue
    }
    const fact = factOf(name, facts)
    if (fact !== undefined) setNumber(name, field, at, fact)
    else if (!weak || !name.startsWith('LINUX_')) throw missing(name)
  }
  return bytes
}

function missing(name: string): NotFoundError {
  return new NotFoundError(`The kernel's configuration has no ${name}`, {
    context: { option: name },
    hint: 'Give its value when loading, or declare it __weak in the program',
  })
}

function factOf(name: string, facts: KconfigFacts): bigint | undefined {
  switch (name) {
    case 'LINUX_KERNEL_VERSION':
      return BigInt(facts.kernelVersion)
    case 'LINUX_HAS_SYSCALL_WRAPPER':
      return facts.hasSyscallWrapper ? 1n : 0n
    case 'LINUX_HAS_BPF_COOKIE':
      return facts.hasBpfCookie ? 1n : 0n
    default:
      return undefined
  }
}

function setValue(name: string, field: KconfigField, at: Uint8Array, value: string): void {
  const { shape } = field
  if (value in TRISTATE && Object.hasOwn(TRISTATE, value)) {
    if (shape === 'tristate') new DataView(at.buffer, at.byteOffset).setUint32(0, TRISTATE[value]!, true)
    else if (shape === 'char') at[0] = value.charCodeAt(0)
    else if (shape === 'bool' && value !== 'm') at[0] = TRISTATE[value]!
    else throw bad(name, `is "${value}", which a variable of type ${shape} cannot hold`)
  } else if (value.startsWith('"')) {
    if (shape !== 'char_array') throw bad(name, `is a string, which a variable of type ${shape} cannot hold`)
    if (value.length < 2 || !value.endsWith('"')) throw bad(name, 'is a string without end')
    // As libbpf: cut to what fits, with a zero byte at the end, and backslashes stay.
    at.set(new TextEncoder().encode(value.slice(1, -1)).subarray(0, at.length - 1))
  } else {
    const number = parseNumber(name, value)
    if (shape !== 'int' && shape !== 'char')
      throw bad(name, `is ${value}, which a variable of type ${shape} cannot hold`)
    setNumber(name, field, at, number)
  }
}

/** As strtoull(3) with base 0: decimal, hexadecimal or octal; negative ones wrap. */
function parseNumber(name: string, text: string): bigint {
  const match = NUMBER.exec(text)
  if (match === null) throw bad(name, `is "${text}", which is no number`)
  const digits = match[2]!
  const octal = /^0[0-7]+$/.test(digits)
  const magnitude = BigInt(octal ? `0o${digits.slice(1)}` : digits)
  if (magnitude > MAX_U64) throw bad(name, `is ${text}, which is more than 64 bits`)
  return BigInt.asUintN(64, match[1] === '-' ? -magnitude : magnitude)
}

/** `value` as 64 bits without sign. */
function setNumber(name: string, field: KconfigField, at: Uint8Array, value: bigint): void {
  const { shape, sizeBytes, signed } = field
  if (shape === 'char_array' || shape === 'tristate')
    throw bad(name, `is a number, which a variable of type ${shape} cannot hold`)
  if (shape === 'bool' && value > 1n) throw bad(name, `is ${value}, which is neither 0 nor 1`)
  const bits = sizeBytes * 8
  const fits = signed
    ? BigInt.asUintN(64, BigInt.asIntN(bits, value)) === value
    : BigInt.asUintN(bits, value) === value
  // Any 64 bits go into 8 bytes, whatever the sign.
  if (!fits && sizeBytes < 8)
    throw bad(name, `is ${BigInt.asIntN(64, value)}, which does not fit ${sizeBytes} bytes`)
  for (let i = 0; i < sizeBytes; i++) at[i] = Number((value >> BigInt(8 * i)) & 0xffn)
}

/** The running kernel's facts, each found out when it is asked for. */
function kernelFacts(): KconfigFacts {
  return {
    get kernelVersion() {
      return kernelVersion()
    },
    get hasSyscallWrapper() {
      return hasSyscallWrapper()
    },
    // By the kernel's own list of helpers, so that it needs no right to load a program. Since Linux
    // 5.15.
    get hasBpfCookie() {
      return (
        findEnums(kernelBtf().bytes, ['bpf_func_id'])
          .get('bpf_func_id')
          ?.has('BPF_FUNC_get_attach_cookie') === true
      )
    },
  }
}

/** Texts that tell which upstream version a kernel is. */
export interface VersionTexts {
  /** uname -r */
  readonly release: string
  /** uname -v */
  readonly version: string
  /** /proc/version_signature, which Ubuntu has. */
  readonly signature?: string | undefined
}

/**
 * KERNEL_VERSION(major, minor, patch) of the running kernel, also where a distribution's release
 * does not tell it.
 */
export function kernelVersion(): number {
  let signature: string | undefined
  try {
    signature = readFileSync('/proc/version_signature', 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return parseKernelVersion({ release: release(), version: version(), signature })
}

/**
 * Which upstream version. Pure. The release of Ubuntu and Debian ends in an ABI number instead of
 * the patch level:
 *
 *   Ubuntu 5.4.0-12.15-generic 5.4.8                    signature: the third word
 *   #1 SMP PREEMPT_DYNAMIC Debian 6.1.90-1 (2024-05-03)  version: after "Debian "
 */
export function parseKernelVersion({ release, version, signature = '' }: VersionTexts): number {
  const match =
    /^\S+\s+\S+\s+(\d+)\.(\d+)\.(\d+)/.exec(signature) ??
    /Debian (\d+)\.(\d+)\.(\d+)/.exec(version) ??
    /^(\d+)\.(\d+)\.(\d+)/.exec(release)
  if (match === null)
    throw new NotSupportedError(`The release "${release}" does not tell the kernel's version`, {
      context: { release },
    })
  const [major, minor, patch] = match.slice(1).map(Number) as [number, number, number]
  return (major << 16) + (minor << 8) + Math.min(patch, 255)
}
