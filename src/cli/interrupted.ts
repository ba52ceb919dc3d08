/** A command that a signal ended before it was done; all it had begun is undone. */
import { constants } from 'node:os'

export class Interrupted extends Error {
  readonly exitStatus: number

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
    this.exitStatus = 128 + constants.signals[signal]
  }
}
