/**
 * What is mounted in a process's mount namespace. The number of a mount is another's as soon as it is
 * gone: so whose a file is, is read after the file is held, which keeps its mount and the number.
 */
import type { Fd } from '../../sys/fd.ts'
import { heldMountId } from '../../sys/open.ts'
import { type ProcessHandle, readProcLines } from '../../sys/process.ts'

/** A hundred thousand mounts, which is what a mount namespace may have, unless their paths are long. */
const MOST_BYTES = 16 * 1024 * 1024
/** All that is read of one process's: what has more is not looked at further. */
const MOST_READ = 4 * MOST_BYTES

export class MountTable {
  readonly #process: ProcessHandle
  #read = 0
  /** When it was first looked at. */
  readonly text: string
  /** False: there is more than was read. */
  readonly isWhole: boolean

  /** NotFoundError: the process has exited. */
  constructor(process: ProcessHandle) {
    this.#process = process
    const { text, isWhole } = this.#now()
    this.text = text
    this.isWhole = isWhole
  }

  /** The line of the mount that a held file is in; undefined: it is in none of these, or is not looked at. */
  lineOf(file: Fd): string | undefined {
    if (this.#read > MOST_READ) return undefined
    const id = `${heldMountId(file)} `
    return this.#now()
      .text.split('\n')
      .find(line => line.startsWith(id))
  }

  #now(): { text: string; isWhole: boolean } {
    const read = readProcLines(this.#process, 'mountinfo', MOST_BYTES)
    this.#read += read.text.length
    return read
  }
}
