/**
 * What matters in a verifier log: the instruction it stopped at, and why. Pure.
 *
 * A log is a walk through the program, thousands of lines of register states, and ends in the
 * reason and some statistics. The format is not stable, so whatever is not known as noise is kept.
 */

/** Statistics, register states and bookkeeping, none of which says what is wrong. */
const NOISE = [
  /^$/,
  /^(processed \d+ insns|verification time|stack depth|max_states_per_insn|insns_processed)\b/,
  // `3: R0=scalar() R10=fp0`, `36: frame1: R1_w=ctx()`: registers without an instruction
  /^\s*(\d+: )?(frame\d+: ?)?(R\d+|fp-\d+)(_\w+)?=/,
  /^(from \d+ to \d+|func#\d+ @\d+|caller:|callee:|returning from callee:|to caller at \d+|(cur|old) state:)/,
  /^(mark_precise:|propagating |last_idx |regs=|parent |SCC (enter|exit)|\(\d+\) (frame \d|live ))/,
  // in newer kernels: a table of the whole program, before the walk
  /^(Live regs before insn:|[ \d]*\d+: [\d.]{10} \([0-9a-f]{2}\) )/,
  /^(Validating .*\(\) func#\d+|Func#\d+ .* is (safe|global))/,
]

/**
 * `12: (85) call bpf_map_lookup_elem#1`, and what the kernel adds: `; R0_w=map_value_or_null(...)`.
 */
const INSTRUCTION = /^\d+: \([0-9a-f]{2}\) /
const STATE_AFTER = /\s+; (R\d|fp-?\d|frame\d).*$/
/** `; if (data + 14 > data_end) @ counter.bpf.c:21`. */
const SOURCE = /^; /
const MAX_REASON_LINES = 6
/**
 * Since Linux 7.3: what was said above once more, at length, with the program around it and how it
 * came there.
 */
const REPORT = /^Verification failed: /

export interface VerifierSummary {
  /** One line: `R0 !read_ok, at 0: (95) exit`. */
  readonly summary: string
  /** The useful end of the log: source line if any, instruction, reason. */
  readonly lines: readonly string[]
}

/** Shortens a log to the failing instruction and the reason. Takes any text, also none. */
export function summarize(log: string): VerifierSummary {
  const end = log.indexOf('\0')
  const all = (end === -1 ? log : log.slice(0, end)).split('\n').map(line => line.trimEnd())
  const report = all.findIndex(line => REPORT.test(line))
  const useful = (report === -1 ? all : all.slice(0, report)).filter(
    line => !NOISE.some(noise => noise.test(line)),
  )
  const at = useful.findLastIndex(line => INSTRUCTION.test(line))
  const reasons = useful.slice(at + 1).filter(line => !SOURCE.test(line))
  const reason = reasons.slice(-MAX_REASON_LINES).map(line => line.trim())
  if (at === -1) {
    return { summary: reason.at(-1) ?? 'the kernel gave no reason', lines: reason }
  }
  const instruction = useful[at]!.replace(STATE_AFTER, '')
  const source = SOURCE.test(useful[at - 1] ?? '') ? [useful[at - 1]!] : []
  return {
    summary: reason.length === 0 ? `stopped at ${instruction}` : `${reason.join('; ')}, at ${instruction}`,
    lines: [...source, instruction, ...reason],
  }
}

/**
 * What the verifier refuses to holders of a token that lack CAP_PERFMON, and lets root do. Source:
 * kernel/bpf/verifier.c, allow_ptr_leaks and bpf_allow_uninit_stack.
 */
const FOR_PERFMON =
  /pointer (comparison|[-+*&|^<>/%]+=) .*prohibited|prohibited for !root|leaks addr|invalid read from stack|CAP_PERFMON/

/** What helps where this is the reason; undefined: it is not. */
export function perfmonHint(summary: string): string | undefined {
  return FOR_PERFMON.test(summary)
    ? 'Root may do this, and who has a token only with the capability perfmon: lend it, or do it otherwise (the length of a packet: bpf_xdp_get_buff_len, or skb->len)'
    : undefined
}

/** How verifiers that do not know an instruction name it, and since when it is known. */
const NEWER: readonly (readonly [RegExp, string, string])[] = [
  [/unknown opcode 0d|BPF_JA\|BPF_X|opcode 0x0d/, 'a jump to a computed address (gotox)', '6.19'],
  [/unknown opcode e5/, 'may_goto', '6.9'],
  [/atomic (opcode|operand)[^,]* (0x)?1(00|10)\b/, 'a load-acquire or store-release', '6.15'],
  [
    /BPF_MOV uses reserved fields|addr_space_cast/,
    'an instruction of arenas (addr_space_cast) or of -mcpu=v4',
    '6.9',
  ],
  [/unknown opcode (06|d7)/, 'an instruction of -mcpu=v4', '6.6'],
]

/** What helps where the kernel is too old for an instruction; undefined: it is not that. */
export function newerInsnHint(summary: string): string | undefined {
  const found = NEWER.find(([pattern]) => pattern.test(summary))
  return (
    found &&
    `The kernel may not know ${found[1]}, which Linux ${found[2]} brought: run a newer one, or compile with a lower -mcpu`
  )
}
