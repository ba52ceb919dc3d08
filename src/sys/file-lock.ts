/** One holder at a time: flock(2). */
import { check } from './failure.ts'
import { native } from './native.ts'

const LOCK_EX = 2
const LOCK_NB = 4
const EAGAIN = 11

/**
 * Locks the open file that `descriptor` stands for, without waiting. False: somebody else has it.
 * The kernel unlocks it when the last copy of the descriptor is closed, so also when its holder is
 * killed. It keeps away only whoever asks for the lock too.
 */
export function lockFile(descriptor: number, object: string): boolean {
  const result = native().flock(descriptor, LOCK_EX | LOCK_NB)
  if (result === -EAGAIN) return false
  check('flock', 'LOCK_EX', result, object)
  return true
}
