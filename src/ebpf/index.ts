/**
 * bpftoken/ebpf: BPF object files, maps, programs, links, ring buffers and tokens from TypeScript.
 *
 * Nouns, one file each. Every object owns a descriptor and is best held with `using`. Every command that
 * the kernel lets a token authorise takes `token`, and finds one by itself as libbpf does (token.ts).
 */
export * from './attach.ts'
export * from './attach-section.ts'
export * from './attach-trace.ts'
export * from './bpffs.ts'
export * from './btf.ts'
export * from './btf-builder.ts'
export * from './btf-object.ts'
export * from './disasm.ts'
export * from './embedded-objects.ts'
export { FEATURES, type Feature, type FeatureName, Features } from './features.ts'
export * from './global-variables.ts'
export * from './insn.ts'
export * from './link.ts'
export * from './map.ts'
export * from './object.ts'
export * from './object-id.ts'
export type { MapChoice } from './object-maps.ts'
export * from './object-spec.ts'
export * from './prog.ts'
export {
  effectiveCapabilities,
  type MissingRight,
  missingCapabilities,
  type Need,
  neededCapabilities,
  type TokenCmd,
  type TokenRights,
} from './rights.ts'
export { RingBuffer, UserRingBuffer } from './ringbuf.ts'
export * from './section-names.ts'
export * from './token.ts'
export * from './type-names.ts'
export * from './typed-value.ts'
export * from './verifier-log.ts'
