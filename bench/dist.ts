/**
 * The compiled JavaScript, which is what users run and so what is measured. Typed by the sources,
 * which are there before anything is built.
 */
import path from 'node:path'

export const DIST = path.resolve(__dirname, '../dist')
export const CLI = path.join(DIST, 'cli/main.js')

function load(module: string): unknown {
  return require(path.join(DIST, module))
}

export const delegation = load('delegation/delegate.js') as typeof import('../src/delegation/delegate.ts')
export const targets = load('delegation/target.js') as typeof import('../src/delegation/target.ts')
export const sandboxes = load('delegation/sandbox.js') as typeof import('../src/delegation/sandbox.ts')
export const vocabularies = load(
  'delegation/vocabulary.js',
) as typeof import('../src/delegation/vocabulary.ts')
export const policies = load('policy/parse.js') as typeof import('../src/policy/parse.ts')
export const masks = load('policy/mask-text.js') as typeof import('../src/policy/mask-text.ts')
export const maps = load('ebpf/map.js') as typeof import('../src/ebpf/map.ts')
export const programs = load('ebpf/prog.js') as typeof import('../src/ebpf/prog.ts')
export const rings = load('ebpf/ringbuf.js') as typeof import('../src/ebpf/ringbuf.ts')
export const asm = load('ebpf/asm/insn.js') as typeof import('../src/ebpf/asm/insn.ts')
export const tokens = load('ebpf/token.js') as typeof import('../src/ebpf/token.ts')
export const mounts = load('sys/mount.js') as typeof import('../src/sys/mount.ts')
export const objects = load('ebpf/object/spec.js') as typeof import('../src/ebpf/object/spec.ts')
export const objectLoading = load('ebpf/load/object.js') as typeof import('../src/ebpf/load/object.ts')
export const kernelTypes = load('ebpf/kernel/btf.js') as typeof import('../src/ebpf/kernel/btf.ts')
export const decisions = load('policy/decide.js') as typeof import('../src/policy/decide.ts')
export const indexes = load('policy/policy-index.js') as typeof import('../src/policy/policy-index.ts')
export const { Client } = load('client/client.js') as typeof import('../src/client/client.ts')
export const recorders = load('record/recorder.js') as typeof import('../src/record/recorder.ts')
