/** From a negative result to a SyscallError that names operation, errno, object and next step. */
import { SyscallError } from '../errors.ts'
import { errnoName } from '../uapi/errno.ts'
import { hintFor } from '../uapi/hints.ts'

/**
 * The error for `-errno`. `op` is the bpf command or the step; `object` is the thing that it was
 * applied to.
 */
export function failure(call: string, op: string, result: number, object?: string): SyscallError {
  const name = errnoName(result)
  return new SyscallError(
    { call, op, errno: Math.abs(result), errnoName: name, ...(object === undefined ? {} : { object }) },
    { hint: hintFor(op, name), context: object === undefined ? {} : { object } },
  )
}

/** `result`, or throws when it is -errno. */
export function check(call: string, op: string, result: number, object?: string): number {
  if (result < 0) throw failure(call, op, result, object)
  return result
}
