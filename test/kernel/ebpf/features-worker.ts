/**
 * Runs inside a sandbox: for each line on stdin, probes every feature with the token of /sys/fs/bpf
 * and answers in JSON.
 */
import { createInterface } from 'node:readline'
import { FEATURES, Features } from '../../../src/ebpf/kernel/features.ts'
import { findToken } from '../../../src/ebpf/token.ts'
import { SyscallError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'

/** Null: not conclusive, which JSON has no word for. */
export interface FeaturesAnswer {
  readonly token: boolean
  readonly features: Readonly<Record<string, boolean | null>>
  /** Descriptors left open. */
  readonly left: number
}

async function answer(): Promise<FeaturesAnswer> {
  const token = tokenOrNull()
  try {
    const features = new Features(token)
    const found: Record<string, boolean | null> = {}
    for (const { name } of FEATURES) found[name] = (await features.has(name)) ?? null
    return { token: token !== null, features: found, left: openFds().length - (token === null ? 0 : 1) }
  } finally {
    token?.close()
  }
}

function tokenOrNull() {
  try {
    return findToken({ path: '/sys/fs/bpf' }) ?? null
  } catch (error) {
    if (error instanceof SyscallError) return null
    throw error
  }
}

async function main(): Promise<void> {
  traceFds()
  process.stdout.write('ready\n')
  for await (const _ of createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await answer())}\n`)
}

void main()
