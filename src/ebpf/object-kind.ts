/** What kind of BPF object a descriptor is: BPF_OBJ_GET and received descriptors do not say. */
import { readlinkSync } from 'node:fs'
import type { Fd } from '../sys/fd.ts'

// A link is called one way when it is made, and another when it is opened again.
const KINDS = {
  map: ['bpf-map'],
  program: ['bpf-prog'],
  link: ['bpf_link', 'bpf-link'],
  BTF: ['btf'],
} as const

export type ObjectKind = keyof typeof KINDS

/**
 * The descriptor again, if it is of that kind; otherwise it is closed and a TypeError says what it
 * is.
 */
export function expectKind(fd: Fd, kind: ObjectKind): Fd {
  // The link is only read: a token must never be opened by way of it.
  const target = readlinkSync(`/proc/self/fd/${fd.number}`)
  for (const name of KINDS[kind])
    if (target === `anon_inode:${name}` || target === `anon_inode:[${name}]`) return fd
  fd.close()
  throw new TypeError(`this is not a BPF ${kind}, but ${target}`)
}
