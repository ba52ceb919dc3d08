/**
 * bpftoken/ebpf: BPF object files, maps, programs, links, ring buffers and tokens from TypeScript.
 *
 * Nouns, one file each. Every object owns a descriptor and is best held with `using`. Every command
 * that the kernel lets a token authorise takes `token`, and finds one by itself as libbpf does
 * (token.ts).
 */

export { disassemble, disassembleInsn } from './asm/disasm.ts'
export {
  ALU_OPS,
  type AluOp,
  ATOMIC_CMPXCHG,
  ATOMIC_FETCH,
  ATOMIC_LOAD_ACQ,
  ATOMIC_OPS,
  ATOMIC_STORE_REL,
  ATOMIC_XCHG,
  type AtomicOp,
  addrSpaceCast,
  alu32,
  alu64,
  assemble,
  atomic,
  bswap,
  CLASS,
  call,
  callKfunc,
  callLocal,
  cmpxchg,
  decode,
  decodeSlot,
  encode,
  exit,
  type HelperName,
  type Insn,
  JUMP_OPS,
  type JumpOp,
  jump,
  jumpIf,
  jumpIf32,
  jumpIndirect,
  jumpLong,
  type Label,
  LD_IMM64,
  label,
  ldAbs,
  ldBtfId,
  ldFunc,
  ldImm64,
  ldInd,
  ldMapFd,
  ldMapIdx,
  ldMapIdxValue,
  ldMapValue,
  load,
  loadAcquire,
  MODE,
  mayGoto,
  mov32,
  mov64,
  movsx32,
  movsx64,
  neg32,
  neg64,
  OP,
  PSEUDO,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R6,
  R7,
  R8,
  R9,
  R10,
  type Reg,
  SIZE,
  type SignedSize,
  SLOT_BYTES,
  SRC_X,
  slotsOf,
  store,
  storeRelease,
  type Target,
  toBe,
  toLe,
  type UnsignedSize,
  xchg,
} from './asm/insn.ts'
export {
  type Anchor,
  attachCgroup,
  attachIterator,
  attachNetfilter,
  attachNetkit,
  attachNetns,
  attachPerfEvent,
  attachRawTracepoint,
  attachReuseport,
  attachSocketFilter,
  attachSockmap,
  attachTcx,
  attachXdp,
  type CgroupOrder,
  detachReuseport,
  detachSocketFilter,
  type IteratorTarget,
  type PerfEventTarget,
} from './attach/attach.ts'
export { attachTc, removeClsact, TcFilter, type TcTarget } from './attach/classic-tc.ts'
export { attachDirectly, type DirectOptions, detachDirectly, type HookTarget } from './attach/direct.ts'
export { attachKprobeMulti, attachUprobeMulti, type KprobePlaces, type UprobePlaces } from './attach/many.ts'
export {
  type AttachSpec,
  attachesItself,
  attachProgram,
  attachStructOpsMap,
} from './attach/section.ts'
export {
  attachKprobe,
  attachStructOps,
  attachTracepoint,
  attachTrampoline,
  attachUprobe,
  StructOpsRegistration,
  syscallFunction,
} from './attach/trace.ts'
export { attachUsdt, type UsdtTarget } from './attach/usdt.ts'
export { type UsdtArgument, type UsdtNote, usdtArguments, usdtNotes } from './attach/usdt-note.ts'
export { type BpffsMount, bpffsMount, bpffsMounts, type DelegationText, delegatedMounts } from './bpffs.ts'
export {
  Btf,
  type BtfArray,
  type BtfComposite,
  type BtfDatasec,
  type BtfEnum,
  type BtfEnum64,
  type BtfFloat,
  type BtfFuncProto,
  type BtfFwd,
  type BtfInt,
  type BtfKind,
  type BtfMember,
  type BtfRef,
  type BtfType,
} from './btf/btf.ts'
export { BtfBuilder, type MemberSpec, type NamedType } from './btf/builder.ts'
export { findEnums } from './btf/enums.ts'
export { BtfObject, type BtfObjectInfo } from './btf/object.ts'
export { printType, printTypes } from './btf/print.ts'
export { BTF_KIND } from './btf/type.ts'
export { type Chars, readValue, type TypedValue, writeValue } from './btf/typed-value.ts'
export { type EmbeddedObject, embeddedObjects } from './elf/embedded-objects.ts'
export { Executable, type ExecutableSection, type Segment } from './elf/executable.ts'
export { matchingSymbols, symbolOffset } from './elf/symbol.ts'
export { forgetKernelBtf } from './kernel/btf.ts'
export { FEATURES, type Feature, type FeatureName, Features } from './kernel/features.ts'
export { KernelTypes } from './kernel/kernel-types.ts'
export { tracedAddresses, tracedFunctions } from './kernel/tracefs.ts'
export { Link, type LinkInfo, type PerfEventInfo } from './link.ts'
export { Arena } from './load/arena.ts'
export type { Initial } from './load/initial-data.ts'
export type { MapChoice } from './load/maps.ts'
export { LoadedObject, type LoadOptions, loadObject, type ProgramChoice } from './load/object.ts'
export { BpfMap, ELEMENT_FLAGS, type Key, MAP_FLAGS, type MapInfo, type MapSpec } from './map.ts'
export { type GlobalVariable, GlobalVariables } from './object/global-variables.ts'
export {
  type AutoAttach,
  legacySection,
  SECTION_RULES,
  type SectionName,
  type SectionRule,
  sectionName,
} from './object/section-names.ts'
export { type ObjectMap, type ObjectProgram, type ObjectSpec, parseObject } from './object/spec.ts'
export { btfIds, linkIds, mapIds, programIds } from './object-id.ts'
export {
  PerfBuffer,
  type PerfBufferOptions,
  type PerfRecord,
  type SampleVisitor,
} from './perf-events.ts'
export {
  Program,
  type ProgramInfo,
  type ProgramSpec,
  type Records,
  type TestRunOptions,
  type TestRunResult,
} from './prog.ts'
export { type Attached, type AttachedProgram, enableStats, fdinfo, queryAttached } from './query.ts'
export { effectiveCapabilities } from './refusal.ts'
export {
  type MissingRight,
  missingCapabilities,
  type Need,
  neededCapabilities,
  type TokenCmd,
  type TokenRights,
} from './rights.ts'
export { type RecordVisitor, RingBuffer, UserRingBuffer } from './ringbuf.ts'
export { type LinkedObject, type LinkInput, linkObjects } from './static-link/static-linker.ts'
export { ethernet, ipv4, ipv6, type Layer, packet, tcp, udp } from './test-run/packet.ts'
export { type RunOptions, type RunResult, runProgram, type Verdict } from './test-run/run-program.ts'
export {
  chooseToken,
  DEFAULT_BPFFS,
  defaultToken,
  findToken,
  forgetDefaultToken,
  missingRights,
  parseTokenFdinfo,
  Token,
  type TokenChoice,
} from './token.ts'
export {
  ATTACH_TYPES,
  type AttachType,
  CMDS,
  type Cmd,
  LINK_TYPES,
  type LinkType,
  MAP_TYPES,
  type MapType,
  PROG_TYPES,
  type ProgType,
  TypeNames,
} from './type-names.ts'
export { type BindingOptions, type Bindings, objectBindings } from './typed/bindings.ts'
export { type ArenaMemory, TypedArena } from './typed/typed-arena.ts'
export {
  type Input,
  KeyedMap,
  TypedEvents,
  TypedMap,
  TypedPerCpuMap,
  TypedPerfEvents,
  TypedQueue,
} from './typed/typed-map.ts'
export {
  bindingOf,
  type Data,
  type Frozen,
  ObjectBinding,
  type ObjectShape,
  type ObjectTypes,
  type TypedLoadOptions,
  TypedObject,
} from './typed/typed-object.ts'
export { summarize, type VerifierSummary } from './verifier-log.ts'
