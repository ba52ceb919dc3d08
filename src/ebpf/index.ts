/**
 * bpftoken/ebpf: BPF object files, maps, programs, links, ring buffers and tokens from TypeScript.
 *
 * Nouns, one file each. Every object owns a descriptor and is best held with `using`. Every command that
 * the kernel lets a token authorise takes `token`, and finds one by itself as libbpf does (token.ts).
 */

export * from './asm/disasm.ts'
export * from './asm/insn.ts'
export * from './attach/attach.ts'
export * from './attach/section.ts'
export * from './attach/trace.ts'
export * from './bpffs.ts'
export * from './btf/btf.ts'
export * from './btf/builder.ts'
export * from './btf/object.ts'
export { printType, printTypes } from './btf/print.ts'
export * from './btf/typed-value.ts'
export * from './elf/embedded-objects.ts'
export { forgetKernelBtf } from './kernel/btf.ts'
export { FEATURES, type Feature, type FeatureName, Features } from './kernel/features.ts'
export * from './link.ts'
export type { MapChoice } from './load/maps.ts'
export * from './load/object.ts'
export * from './map.ts'
export * from './object/global-variables.ts'
export * from './object/section-names.ts'
export * from './object/spec.ts'
export * from './object-id.ts'
export * from './prog.ts'
export { effectiveCapabilities } from './refusal.ts'
export {
  type MissingRight,
  missingCapabilities,
  type Need,
  neededCapabilities,
  type TokenCmd,
  type TokenRights,
} from './rights.ts'
export { RingBuffer, UserRingBuffer } from './ringbuf.ts'
export * from './token.ts'
export * from './type-names.ts'
export * from './verifier-log.ts'
