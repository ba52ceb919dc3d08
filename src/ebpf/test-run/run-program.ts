/**
 * A program run here and now, for tests of it: with a packet, with a context by the names of its
 * members, several times; and what it answered by name.
 *
 *   const { verdict } = await runProgram(program, { packet: packet(ethernet(), ipv4(), tcp()) })
 *   assert.equal(verdict, 'drop')
 */
import { InputError } from '../../errors.ts'
import { xdp_action } from '../../uapi/bpf.ts'
import { readValue, type TypedValue, writeValue } from '../btf/typed-value.ts'
import { kernelBtf } from '../kernel/btf.ts'
import { type Program, TEST_RUN_FLAGS } from '../prog.ts'
import type { ProgType } from '../type-names.ts'

export interface RunOptions {
  /** What network programs see: from the Ethernet header on. At least 14 bytes. */
  readonly packet?: Uint8Array
  /**
   * Members of the context, by their names in C; others are zero. Of `__sk_buff` the kernel lets
   * some be set: mark, priority, ifindex, ingress_ifindex, cb, tstamp, wire_len, gso_segs, gso_size,
   * hwtstamp; of `xdp_md` ingress_ifindex and rx_queue_index. For other types of program it is bytes.
   */
  readonly context?: { readonly [member: string]: TypedValue } | Uint8Array
  /** Arguments of a raw tracepoint. */
  readonly args?: readonly bigint[]
  /** How often; 1 by default. `durationNs` is then the mean. */
  readonly repeat?: number
  /** On this CPU alone; for raw tracepoints. */
  readonly cpu?: number
  /** Room for the packet when it has grown; 256 bytes more than it has by default. */
  readonly packetRoomBytes?: number
}

export interface RunResult {
  /** As a signed number of 32 bits. */
  readonly returned: number
  /** What the number means to XDP and tc; undefined: something else, or another type of program. */
  readonly verdict: Verdict | undefined
  /** Mean time of one run. */
  readonly durationNs: number
  /** The packet as the program left it. */
  readonly packet: Uint8Array
  /** The context as the program left it, by the names of its members; bytes where it was given so. */
  readonly context: { readonly [member: string]: TypedValue } | Uint8Array
}

export type Verdict = 'pass' | 'drop' | 'aborted' | 'transmit' | 'redirect' | 'next' | 'pipe' | 'stolen'

const XDP_VERDICTS: ReadonlyMap<number, Verdict> = new Map([
  [xdp_action.XDP_ABORTED, 'aborted'],
  [xdp_action.XDP_DROP, 'drop'],
  [xdp_action.XDP_PASS, 'pass'],
  [xdp_action.XDP_TX, 'transmit'],
  [xdp_action.XDP_REDIRECT, 'redirect'],
])
/** TC_ACT_*, include/uapi/linux/pkt_cls.h; those of tcx have the same numbers. */
const TC_VERDICTS: ReadonlyMap<number, Verdict> = new Map([
  [-1, 'next'],
  [0, 'pass'],
  [2, 'drop'],
  [3, 'pipe'],
  [4, 'stolen'],
  [7, 'redirect'],
])
const XDP_MD = 'xdp_md'
const SK_BUFF = '__sk_buff'
/** Structs of contexts, by types of program. */
const CONTEXTS: { readonly [type in ProgType]?: string } = {
  xdp: XDP_MD,
  sched_cls: SK_BUFF,
  sched_act: SK_BUFF,
  socket_filter: SK_BUFF,
  cgroup_skb: SK_BUFF,
  lwt_in: SK_BUFF,
  lwt_out: SK_BUFF,
  lwt_xmit: SK_BUFF,
  sk_lookup: 'bpf_sk_lookup',
  flow_dissector: 'bpf_flow_keys',
}
const ARG_BYTES = 8

/**
 * Runs a loaded program: BPF_PROG_TEST_RUN. Needs no capability and no right: who holds the program
 * may run it. InputError: a context that this type does not have, or a member that there is not.
 * Errors of the kernel are those of `Program.testRun`.
 */
export async function runProgram(program: Program, options: RunOptions = {}): Promise<RunResult> {
  const { type } = program.info()
  const struct = CONTEXTS[type]
  const contextIn = contextOf(type, struct, options)
  const result = await program.testRun({
    ...(options.packet === undefined ? {} : { dataIn: options.packet }),
    ...(contextIn === undefined ? {} : { contextIn }),
    ...(options.packetRoomBytes === undefined ? {} : { dataOutBytes: options.packetRoomBytes }),
    ...(options.repeat === undefined ? {} : { repeat: options.repeat }),
    ...(options.cpu === undefined ? {} : { cpu: options.cpu, flags: TEST_RUN_FLAGS.onCpu }),
  })
  const returned = result.returned | 0
  const isNamed = options.context !== undefined && !(options.context instanceof Uint8Array)
  return {
    returned,
    verdict: verdictOf(type, returned),
    durationNs: result.durationNs,
    packet: result.data,
    context:
      isNamed && struct !== undefined
        ? (readValue(kernelBtf().types, structId(struct), result.context) as RunResult['context'])
        : result.context,
  }
}

function verdictOf(type: ProgType, returned: number): Verdict | undefined {
  if (type === 'xdp') return XDP_VERDICTS.get(returned)
  return type === 'sched_cls' || type === 'sched_act' ? TC_VERDICTS.get(returned) : undefined
}

function contextOf(
  type: ProgType,
  struct: string | undefined,
  { context, args, packet }: RunOptions,
): Uint8Array | undefined {
  if (args !== undefined) {
    if (context !== undefined) throw new InputError('A program takes arguments or a context, not both')
    const bytes = new Uint8Array(args.length * ARG_BYTES)
    const view = new DataView(bytes.buffer)
    for (const [i, value] of args.entries()) view.setBigUint64(i * ARG_BYTES, BigInt.asUintN(64, value), true)
    return bytes
  }
  if (context === undefined || context instanceof Uint8Array) return context
  if (struct === undefined)
    throw new InputError(`A program of type ${type} has no context with names for its members`, {
      context: { type },
      hint: 'Give its context as bytes',
    })
  const { types } = kernelBtf()
  const id = structId(struct)
  const bytes = new Uint8Array(types.sizeof(id))
  // As the kernel wants them: offsets into the packet, of which the frame's own begins at zero.
  const own = struct === XDP_MD ? { data_end: packet?.length ?? 0 } : {}
  try {
    writeValue(types, id, bytes, 0, { ...own, ...context })
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof TypeError)) throw error
    throw new InputError(`The context of a program of type ${type}: ${error.message}`, { cause: error })
  }
  return bytes
}

function structId(name: string): number {
  const id = kernelBtf().types.find(name, 'struct')[0]
  if (id !== undefined) return id
  throw new InputError(`This kernel does not describe struct ${name}`, {
    context: { struct: name },
    hint: 'Give the context as bytes',
  })
}
