import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { summarize } from '../../../src/ebpf/verifier-log.ts'

// Logs of level 2, written by Linux 6.18 for programs that it refused, unless said otherwise.
const R0_NOT_SET = `func#0 @0
Live regs before insn:
      0: 0......... (95) exit
0: R1=ctx() R10=fp0
0: (95) exit
R0 !read_ok
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

`
const NULL_NOT_CHECKED = `func#0 @0
Live regs before insn:
      0: .......... (bf) r2 = r10
      1: ..2....... (07) r2 += -4
      2: ..2....... (62) *(u32 *)(r10 -4) = 0
      3: ..2....... (18) r1 = 0xffff888102737400
      5: .12....... (85) call bpf_map_lookup_elem#1
      6: 0......... (79) r0 = *(u64 *)(r0 +0)
      7: 0......... (95) exit
0: R1=ctx() R10=fp0
0: (bf) r2 = r10                      ; R2=fp0 R10=fp0
1: (07) r2 += -4                      ; R2=fp-4
2: (62) *(u32 *)(r10 -4) = 0          ; R10=fp0 fp-8=0000????
3: (18) r1 = 0xffff888102737400       ; R1=map_ptr(ks=4,vs=8)
5: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,ks=4,vs=8)
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 6 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`
const PACKET = `0: R1=ctx() R10=fp0
0: (61) r2 = *(u32 *)(r1 +0)          ; R1=ctx() R2=pkt(r=0)
1: (71) r0 = *(u8 *)(r2 +0)
invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)
R2 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`
const ENDLESS = `func#0 @0
Live regs before insn:
      0: .......... (b7) r0 = 0
  1   1: .......... (05) goto pc-1
0: R1=ctx() R10=fp0
0: (b7) r0 = 0                        ; R0=0
1: (05) goto pc-1
SCC enter (1)
1: (05) goto pc-1
infinite loop detected at insn 1
cur state: R0=0 R1=ctx() R10=fp0
old state: R0=0 R1=ctx() R10=fp0
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
`
// Linux 7.3, level 1.
const WITH_REPORT = `0: R1=ctx() R10=fp0
0: (b7) r1 = 0                        ; R1=0
1: (85) call bpf_map_lookup_elem#1
R1 type=scalar expected=map_ptr

Verification failed: Call Type Safety: Invalid call argument

Reason:
  The first argument (R1) to bpf_map_lookup_elem does not satisfy the verifier contract: it has type
  scalar, but this argument accepts map_ptr.

At:
  insn 1
       | ^-- error: invalid first argument (R1) for bpf_map_lookup_elem
  Instruction context:
      0 | (b7) r1 = 0
  >>> 1 | (85) call bpf_map_lookup_elem#1
      2 | (b7) r0 = 0

Suggestion:
  Pass a value with one of the accepted pointer or scalar types for this call.

processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`
const UNREACHABLE = `func#0 @0
unreachable insn 2
processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`
const HELPER_ARGUMENT = `0: R1=ctx() R10=fp0
0: (85) call bpf_probe_read_kernel#113
R1 type=ctx expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`
// In the form of Linux 6.1, with BTF line info and statistics (log_level 1 | 4).
const WITH_SOURCE = `reg type unsupported for arg#0 function count#7
0: R1=ctx(off=0,imm=0) R10=fp0
; void *end = (void *)(long)ctx->data_end;
0: (61) r2 = *(u32 *)(r1 +4)          ; R1_w=ctx(off=0,imm=0) R2_w=pkt_end(off=0,imm=0)
; if (eth->h_proto == 8)
1: (69) r1 = *(u16 *)(r2 +12)
R2 invalid mem access 'pkt_end'
verification time 61 usec
stack depth 0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`

const GOLDEN: [name: string, log: string, summary: string, lines: string[]][] = [
  ['R0 is not set', R0_NOT_SET, 'R0 !read_ok, at 0: (95) exit', ['0: (95) exit', 'R0 !read_ok']],
  [
    'a lookup is not checked for NULL',
    NULL_NOT_CHECKED,
    "R0 invalid mem access 'map_value_or_null', at 6: (79) r0 = *(u64 *)(r0 +0)",
    ['6: (79) r0 = *(u64 *)(r0 +0)', "R0 invalid mem access 'map_value_or_null'"],
  ],
  [
    'the reason has two lines',
    PACKET,
    'invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0); R2 offset is outside of the packet, at 1: (71) r0 = *(u8 *)(r2 +0)',
    [
      '1: (71) r0 = *(u8 *)(r2 +0)',
      'invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)',
      'R2 offset is outside of the packet',
    ],
  ],
  [
    'states follow the reason',
    ENDLESS,
    'infinite loop detected at insn 1, at 1: (05) goto pc-1',
    ['1: (05) goto pc-1', 'infinite loop detected at insn 1'],
  ],
  [
    'a report follows the reason',
    WITH_REPORT,
    'R1 type=scalar expected=map_ptr, at 1: (85) call bpf_map_lookup_elem#1',
    ['1: (85) call bpf_map_lookup_elem#1', 'R1 type=scalar expected=map_ptr'],
  ],
  ['no instruction was walked', UNREACHABLE, 'unreachable insn 2', ['unreachable insn 2']],
  [
    'the reason itself has an equals sign',
    HELPER_ARGUMENT,
    'R1 type=ctx expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_, at 0: (85) call bpf_probe_read_kernel#113',
    [
      '0: (85) call bpf_probe_read_kernel#113',
      'R1 type=ctx expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_',
    ],
  ],
  [
    'there are source lines',
    WITH_SOURCE,
    "R2 invalid mem access 'pkt_end', at 1: (69) r1 = *(u16 *)(r2 +12)",
    ['; if (eth->h_proto == 8)', '1: (69) r1 = *(u16 *)(r2 +12)', "R2 invalid mem access 'pkt_end'"],
  ],
]

for (const [name, log, summary, lines] of GOLDEN) {
  test(`summarize() keeps instruction and reason when ${name}`, () => {
    assert.deepEqual(summarize(log), { summary, lines })
  })
}

test('summarize() says so when there is no log', () => {
  assert.deepEqual(summarize(''), { summary: 'the kernel gave no reason', lines: [] })
  assert.deepEqual(summarize('\0\0\0'), { summary: 'the kernel gave no reason', lines: [] })
})

test('summarize() drops the state behind an instruction when the log was cut off there', () => {
  const cut = '0: R1=ctx() R10=fp0\n0: (b7) r0 = 0                        ; R0=0\n'
  assert.equal(summarize(cut).summary, 'stopped at 0: (b7) r0 = 0')
})

test('summarize() ignores what lies behind a zero byte', () => {
  assert.equal(summarize(`${UNREACHABLE}\0left from another log`).summary, 'unreachable insn 2')
})

test('summarize() returns one line of summary when given any text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), text => {
      assert.ok(!summarize(text).summary.includes('\n'))
    }),
  )
})
