/** What a system call came to, in the model's words. */
import { errnoName } from '../../../src/uapi/errno.ts'

/** `ok`, or the errno's name. */
export function outcomeOf(result: number): string {
  return result >= 0 ? 'ok' : errnoName(result)
}
