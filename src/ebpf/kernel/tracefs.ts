/** Kernel functions and tracepoints that can be traced, from tracefs, which only root may read. */
import { readFileSync } from 'node:fs'
import { NotFoundError, NotSupportedError } from '../../errors.ts'
import { glob } from '../glob.ts'

const TRACEFS = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']

/**
 * Kernel functions that can be traced and whose names fit a pattern with `*`, `?` and `[...]`.
 * NotFoundError: none does. NotSupportedError: tracefs cannot be read, which only root may.
 */
export function tracedFunctions(pattern: string): string[] {
  const fits = glob(pattern)
  // With the module in brackets; of functions with one name, the name counts once.
  const names = new Set(
    tracefsFile('available_filter_functions')
      .split('\n')
      .map(line => line.split(' ', 1)[0]!),
  )
  const found = [...names].filter(fits)
  if (found.length > 0) return found
  throw new NotFoundError(`No kernel function fits "${pattern}"`, { context: { pattern } })
}

/** NotSupportedError: there is no such file that we may read. */
export function tracefsFile(path: string): string {
  for (const root of TRACEFS) {
    try {
      return readFileSync(`${root}/${path}`, 'utf8')
    } catch (error) {
      // Whatever it is, there may be another place.
      if ((error as NodeJS.ErrnoException).code === undefined) throw error
    }
  }
  throw new NotSupportedError(`tracefs has no ${path} that we may read`, {
    context: { path },
    hint: 'Mount tracefs at /sys/kernel/tracing, and be root',
  })
}

/**
 * The same by address, so that every function of a name is meant: since Linux 6.5. Undefined: an
 * older kernel.
 */
export function tracedAddresses(pattern: string): bigint[] | undefined {
  const fits = glob(pattern)
  let text: string
  try {
    text = tracefsFile('available_filter_functions_addrs')
  } catch (error) {
    if (error instanceof NotSupportedError) return undefined
    throw error
  }
  // `ffffffff81000000 name`, and the module in brackets.
  const found = text.split('\n').flatMap(line => {
    const [address, name = ''] = line.split(' ', 2)
    return name !== '' && fits(name) ? [BigInt(`0x${address}`)] : []
  })
  if (found.length > 0) return found
  throw new NotFoundError(`No kernel function fits "${pattern}"`, { context: { pattern } })
}
