/**
 * Values of per-CPU maps: bpf(2) copies one for each possible CPU, each in a slot rounded up to 8
 * bytes (kernel/bpf/syscall.c, bpf_map_value_size).
 */
import { readFileSync } from 'node:fs'

/** The CPUs that a list such as `0-3,8` names. */
function cpusIn(list: string): number[] {
  return list
    .trim()
    .split(',')
    .filter(range => range !== '')
    .flatMap(range => {
      const [first = 0, last = first] = range.split('-').map(Number)
      return Array.from({ length: last - first + 1 }, (_, i) => first + i)
    })
}

let possible: number | undefined

/** CPUs that this machine could ever have, online or not; fixed from boot on. */
export function possibleCpus(): number {
  possible ??= cpusIn(readFileSync('/sys/devices/system/cpu/possible', 'utf8')).length
  return possible
}

/** Numbers of the CPUs that run now. */
export function onlineCpus(): number[] {
  return cpusIn(readFileSync('/sys/devices/system/cpu/online', 'utf8'))
}

/** Bytes from one CPU's value to the next. */
export function slotBytes(valueBytes: number): number {
  return Math.ceil(valueBytes / 8) * 8
}

/** One view per possible CPU, in the order of their numbers, onto what a lookup gave. */
export function splitPerCpu(data: Uint8Array, valueBytes: number): Uint8Array[] {
  const slot = slotBytes(valueBytes)
  return Array.from({ length: data.length / slot }, (_, cpu) =>
    data.subarray(cpu * slot, cpu * slot + valueBytes),
  )
}

/**
 * The reverse: what an update takes. Each value must be `valueBytes` long, and there must be one
 * per possible CPU.
 */
export function joinPerCpu(values: readonly Uint8Array[], valueBytes: number): Uint8Array {
  if (values.length !== possibleCpus() || values.some(value => value.length !== valueBytes))
    throw new TypeError(`a per-CPU value is ${possibleCpus()} arrays of ${valueBytes} bytes each`)
  const slot = slotBytes(valueBytes)
  const data = new Uint8Array(slot * values.length)
  values.forEach((value, cpu) => {
    data.set(value, cpu * slot)
  })
  return data
}
