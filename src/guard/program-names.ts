/**
 * Whether an executable is more than one program. The guard knows a delegator by the file that it
 * runs. If the file is many programs, or runs what others wrote, every use of it may then delegate.
 */
import { closeSync, openSync, readdirSync, readSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'

export interface Breadth {
  readonly kind: 'names' | 'multi-call' | 'interpreter' | 'script'
  /** One sentence. */
  readonly what: string
  /** The other names, with kind `names`. */
  readonly names?: readonly string[]
}

const MULTI_CALL = /^(busybox|toybox|coreutils|uutils|sbase-box)([.-].*)?$/
const INTERPRETER =
  /^(python|perl|ruby|node|nodejs|bun|deno|lua|luajit|php|java|bash|dash|sh|ash|ksh|mksh|zsh|fish|tclsh|guile|gawk|mawk|awk|R|julia|pwsh|dotnet|erl|escript|beam\.smp|qemu-\w+(-static)?|ld-linux[\w.-]*|ld-musl-[\w.-]*|ld)[\d.]*(\.so[.\d]*)?$/

const SHOWN = 6

/**
 * What one should know before trusting the file; for most files there is nothing. Errors of the
 * file system throw.
 */
export function breadthOf(executable: string): Breadth[] {
  const file = realpathSync(executable)
  const { dev, ino, nlink } = statSync(file)
  const name = path.basename(file)
  if (isScript(file))
    return [
      { kind: 'script', what: `${file} is a script: what runs is its interpreter, and that is another file` },
    ]
  const found: Breadth[] = []
  if (MULTI_CALL.test(name))
    found.push({
      kind: 'multi-call',
      what: `${file} is many programs in one file: each of them may delegate`,
    })
  if (INTERPRETER.test(name))
    found.push({
      kind: 'interpreter',
      what: `${file} runs programs that others write: each of them may delegate`,
    })
  const names = otherNames(file, executable, { dev, ino })
  const elsewhere = nlink > 1 + names.filter(one => one.hard).length
  if (names.length > 0 || elsewhere) {
    const list = names.map(one => one.path)
    const shown =
      list.slice(0, SHOWN).join(', ') + (list.length > SHOWN ? ` and ${list.length - SHOWN} more` : '')
    const all = [
      ...(list.length > 0 ? [shown] : []),
      ...(elsewhere ? ['hard links in other directories'] : []),
    ]
    found.push({
      kind: 'names',
      what: `${file} answers to other names too, and may delegate under each: ${all.join(', ')}`,
      names: list,
    })
  }
  return found
}

function isScript(file: string): boolean {
  const fd = openSync(file, 'r')
  try {
    const magic = Buffer.alloc(2)
    return readSync(fd, magic) === 2 && magic.toString('latin1') === '#!'
  } finally {
    closeSync(fd)
  }
}

interface OtherName {
  readonly path: string
  readonly hard: boolean
}

/** Names in the directory of the file, and in that of the name that was given. */
function otherNames(file: string, given: string, { dev, ino }: { dev: number; ino: number }): OtherName[] {
  const directories = new Set([path.dirname(file), realpathSync(path.dirname(path.resolve(given)))])
  const named = new Set([
    file,
    ...[...directories].map(directory => path.join(directory, path.basename(given))),
  ])
  const isFile = (one: string): boolean => {
    try {
      const stat = statSync(one)
      return stat.dev === dev && stat.ino === ino
    } catch {
      return false // A link that leads nowhere.
    }
  }
  return [...directories].flatMap(directory =>
    readdirSync(directory, { withFileTypes: true })
      .filter(entry => entry.isFile() || entry.isSymbolicLink())
      .map(entry => ({ path: path.join(directory, entry.name), hard: entry.isFile() }))
      .filter(one => !named.has(one.path) && isFile(one.path)),
  )
}
