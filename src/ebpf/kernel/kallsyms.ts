/** Kernel symbols by name, from /proc/kallsyms. */
import { closeSync, openSync, readSync } from 'node:fs'
import { ConflictError, NotSupportedError } from '../../errors.ts'

const PATH = '/proc/kallsyms'
const CHUNK_BYTES = 256 * 1024

/**
 * Addresses of those names that the kernel has; the others are missing from the result. One pass
 * over some 200,000 lines. ConflictError: a name has two addresses, so that neither is right.
 * NotSupportedError: kptr_restrict hides all addresses from us; CAP_SYSLOG in the initial user
 * namespace shows them.
 */
export function ksymAddresses(names: ReadonlySet<string>): Map<string, bigint> {
  return addressesIn(lines(PATH), names)
}

/** The same over any lines. Pure. */
export function addressesIn(text: Iterable<string>, names: ReadonlySet<string>): Map<string, bigint> {
  const found = new Map<string, bigint>()
  if (names.size === 0) return found
  let hidden = true
  for (const line of text) {
    // A few per-CPU symbols are at 0; where all are, they are hidden.
    hidden &&= line.startsWith('0000000000000000')
    const name = nameOf(line)
    if (!names.has(name)) continue
    const address = BigInt(`0x${line.slice(0, line.indexOf(' '))}`)
    const other = found.get(name)
    if (other !== undefined && other !== address)
      throw new ConflictError(
        `Symbol "${name}" is ambiguous: at 0x${other.toString(16)} and at 0x${address.toString(16)}`,
        { context: { symbol: name } },
      )
    found.set(name, address)
  }
  // Fail closed: 0 as an address would look like a symbol that is not there.
  if (hidden && found.size > 0)
    throw new NotSupportedError(`The kernel hides the addresses of its symbols`, {
      context: { path: PATH, symbol: [...found.keys()][0] },
      hint: 'Lower sysctl kernel.kptr_restrict, or run with CAP_SYSLOG in the initial user namespace',
    })
  return found
}

/**
 * Second space to tab or end. Link-time optimisation adds a suffix to static data, which sources do
 * not know.
 */
function nameOf(line: string): string {
  const start = line.indexOf(' ') + 3
  const tab = line.indexOf('\t', start)
  const name = tab === -1 ? line.slice(start) : line.slice(start, tab)
  if (line[start - 2] !== 'd') return name
  const llvm = name.indexOf('.llvm.')
  return llvm === -1 ? name : name.slice(0, llvm)
}

function* lines(path: string): Generator<string> {
  const fd = openSync(path, 'r')
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES)
    let rest = ''
    for (let got = readSync(fd, chunk); got > 0; got = readSync(fd, chunk)) {
      const parts = (rest + chunk.toString('latin1', 0, got)).split('\n')
      rest = parts.pop()!
      yield* parts
    }
    if (rest !== '') yield rest
  } finally {
    closeSync(fd)
  }
}

/** What a kernel puts before the names of its system calls, by Node's name of the architecture. */
const SYSCALL_PREFIXES: Readonly<Partial<Record<NodeJS.Architecture, string>>> = {
  ...{ x64: 'x64', ia32: 'ia32', arm64: 'arm64', arm: 'arm' },
  ...{ riscv64: 'riscv', s390x: 's390x', ppc64: 'powerpc', mips: 'mips' },
}

let wrapped: boolean | undefined

/**
 * Whether system calls take their arguments in one struct (CONFIG_ARCH_HAS_SYSCALL_WRAPPER), so
 * that a probe of one has to unpack them. By name, so it needs no capability. x86 and s390 since
 * Linux 4.17, arm64 since 4.19.
 */
export function hasSyscallWrapper(): boolean {
  wrapped ??= findWrapper()
  return wrapped
}

function findWrapper(): boolean {
  const prefix = SYSCALL_PREFIXES[process.arch]
  if (prefix === undefined) return false
  const wanted = `__${prefix}_sys_bpf`
  for (const line of lines(PATH)) if (nameOf(line) === wanted) return true
  return false
}
