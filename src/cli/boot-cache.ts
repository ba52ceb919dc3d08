/**
 * Values that hold until the next boot: what the kernel's type information says, and parsed policies.
 *
 * Getting either takes longer than all the rest of `run`. They are kept in a directory that only root
 * can enter and that is gone with the next boot, together with the text they were made from: a value
 * counts only for exactly that text on exactly this kernel.
 */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'

const DIRECTORY = '/run/bpftoken'

interface Entry {
  kernel: string
  text: string
  value: unknown
}

/**
 * The value kept for `text`, as JSON, or what `make` gives, which is then kept. Whatever is wrong with
 * the cache (not root, read-only, another version's file), `make` is called: it costs time only.
 */
export async function cached<T>(
  kind: 'policy' | 'vocabulary',
  text: string,
  convert: { fromJSON(value: unknown): T; toJSON(value: T): unknown },
  make: () => T | Promise<T>,
): Promise<T> {
  const kernel = kernelIdentity()
  const file = kernel === undefined ? undefined : entryFile(kind, text)
  if (file === undefined) return make()
  try {
    const entry = JSON.parse(readFileSync(file, 'utf8')) as Entry
    if (entry.kernel === kernel && entry.text === text) return convert.fromJSON(entry.value)
  } catch {
    // Not there, or not ours to understand.
  }
  const value = await make()
  store(file, { kernel: kernel!, text, value: convert.toJSON(value) })
  return value
}

/** Build id of the running kernel, from its ELF notes, with its release. */
function kernelIdentity(): string | undefined {
  try {
    return `${release()} ${readFileSync('/sys/kernel/notes').toString('hex')}`
  } catch {
    return undefined
  }
}

function entryFile(kind: string, text: string): string | undefined {
  if (process.geteuid?.() !== 0) return undefined
  try {
    mkdirSync(DIRECTORY, { recursive: true, mode: 0o700 })
    const { uid, mode } = statSync(DIRECTORY)
    // Fail closed: what others could have written is not read.
    if (uid !== 0 || (mode & 0o077) !== 0) return undefined
  } catch {
    return undefined
  }
  return `${DIRECTORY}/${kind}-${shortHash(text)}.json`
}

/** FNV-1a. Only spreads names over files: the text itself is compared. */
function shortHash(text: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}

function store(file: string, entry: Entry): void {
  const temporary = `${file}.${process.pid}`
  try {
    writeFileSync(temporary, JSON.stringify(entry), { mode: 0o600 })
    renameSync(temporary, file)
  } catch {
    // A full /run costs time, not correctness.
  }
}
