/**
 * Which programs are loaded without a thread: to hand one over takes longer than to verify most. An
 * object may be anybody's, so only what cannot take long is loaded so, and little in one turn of the
 * event loop.
 */
import { SLOT_BYTES } from './asm/insn.ts'
import { mostSteps } from './asm/most-steps.ts'

/** Of the verifier, in one turn: two milliseconds, of the worst programs that were tried. */
const MOST_STEPS = 4096
/** What a load takes besides, in steps: so there are fifteen in a turn at most. */
const STEPS_OF_A_LOAD = 256
/**
 * Each instruction that the kernel replaces has it move those behind (bpf_patch_insn_data), so that
 * 1,000 of them take 40 ms. This lets no program be longer than 350.
 */
const INSNS_MOVED_IN_A_STEP = 32

/**
 * Types that may be loaded without CAP_BPF, where kernel.unprivileged_bpf_disabled is 0. Then one
 * is verified after the other, also those of others.
 */
const UNPRIVILEGED: ReadonlySet<string> = new Set(['socket_filter', 'cgroup_skb'])

let stepsLeft = MOST_STEPS

export interface ToLoad {
  readonly type: string
  readonly insns: Uint8Array
  /** How many functions it says that it has; 0: it does not say. */
  readonly functions: number
  /** Its device has a say, and takes its time. */
  readonly isOffloaded: boolean
}

/** Whether to load the program at once, which is then counted. */
export function loadsAtOnce({ type, insns, functions, isOffloaded }: ToLoad): boolean {
  if (isOffloaded || functions > 1 || UNPRIVILEGED.has(type)) return false
  const count = insns.length / SLOT_BYTES
  const fixed = STEPS_OF_A_LOAD + count ** 2 / INSNS_MOVED_IN_A_STEP
  const steps = fixed > stepsLeft ? fixed : fixed + mostSteps(insns)
  if (steps > stepsLeft) return false
  // Microtasks alone come before the next turn.
  if (stepsLeft === MOST_STEPS)
    setImmediate(() => {
      stepsLeft = MOST_STEPS
    }).unref()
  stepsLeft -= steps
  return true
}
