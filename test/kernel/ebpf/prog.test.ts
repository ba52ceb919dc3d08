/**
 * Program and BtfObject on the running kernel: loading, the verifier's log, running, pinning, ids.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import {
  alu64,
  BpfMap,
  BtfBuilder,
  BtfObject,
  btfIds,
  call,
  exit,
  type Insn,
  jumpIf,
  label,
  load,
  mov64,
  Program,
  type ProgType,
  programIds,
  R0,
  R1,
  R2,
  R6,
  R10,
  store,
} from '../../../src/ebpf/index.ts'
import { SyscallError, VerifierError } from '../../../src/errors.ts'
import { count, countAndReturn, counter, errno, kernelTest, loadProgram, privateBpffs } from './fixture.ts'

const PASS = [mov64(R0, 2), exit()]
const PACKET = new Uint8Array(64)

/** Types that need nothing but a type, and the attach type where the kernel wants one. */
const PLAIN: [ProgType, Parameters<typeof loadProgram>[0]['expectedAttachType']?, number?][] = [
  ['socket_filter'],
  ['kprobe'],
  ['sched_cls'],
  ['sched_act'],
  ['tracepoint'],
  ['xdp'],
  ['xdp', 'xdp_devmap'],
  ['perf_event'],
  ['cgroup_skb'],
  ['cgroup_skb', 'cgroup_inet_egress', 1],
  ['cgroup_sock'],
  ['lwt_in'],
  ['lwt_out'],
  ['lwt_xmit'],
  ['sock_ops'],
  ['sk_skb'],
  ['cgroup_device'],
  ['sk_msg'],
  ['raw_tracepoint'],
  ['raw_tracepoint_writable'],
  ['cgroup_sock_addr', 'cgroup_inet4_connect'],
  ['lwt_seg6local'],
  ['sk_reuseport'],
  ['flow_dissector'],
  ['cgroup_sysctl'],
  ['cgroup_sockopt', 'cgroup_getsockopt'],
  ['sk_lookup', 'sk_lookup'],
  ['syscall'],
  ['netfilter', 'netfilter'],
]

for (const [type, expectedAttachType, returns = 1] of PLAIN) {
  const where = expectedAttachType === undefined ? '' : ` for ${expectedAttachType}`
  kernelTest(`Program.load() loads a ${type}${where}`, async () => {
    try {
      using program = await loadProgram({
        type,
        insns: [mov64(R0, type === 'flow_dissector' ? 0 : returns), exit()],
        flags: type === 'syscall' ? 0x10 /* BPF_F_SLEEPABLE */ : 0,
        ...(expectedAttachType === undefined ? {} : { expectedAttachType }),
      })
      assert.equal(program.info().type, type)
      assert.equal(program.info().gplCompatible, true)
      assert.deepEqual(program.log, [])
    } catch (error) {
      // The type is not built into this kernel; then it has no log to show, and every program of it
      // is refused.
      if (!(error instanceof SyscallError) || error.errnoName !== 'EINVAL' || error.hint !== undefined)
        throw error
      assert.ok(NOT_BUILT_IN.includes(type), `${type}: ${error.message}`)
    }
  })
}

/** Types behind kernel options that a small kernel may leave out. */
const NOT_BUILT_IN: ProgType[] = [
  'kprobe',
  'tracepoint',
  'perf_event',
  'netfilter',
  'lwt_seg6local',
  'lirc_mode2',
]

kernelTest('Program.load() throws VerifierError with log and summary when the verifier refuses', async () => {
  await assert.rejects(loadProgram({ type: 'xdp', insns: [exit()] }), (error: unknown) => {
    assert.ok(error instanceof VerifierError)
    assert.equal(error.errnoName, 'EACCES')
    assert.match(error.message, /R0 !read_ok, at 0: \(95\) exit/)
    assert.ok(error.log.includes('R0 !read_ok'))
    return true
  })
})

kernelTest('Program.load() grows its log buffer when the log is longer than the first one', async () => {
  // Each branch doubles the states that the log describes; the last instruction is wrong.
  const body: (Insn | ReturnType<typeof label>)[] = [mov64(R6, R1)]
  for (let i = 0; i < 1500; i++) {
    body.push(call('get_prandom_u32'), jumpIf('==', R0, 0, `l${i}`), alu64('+=', R0, 1), label(`l${i}`))
  }
  body.push(load('u64', R0, R2, 0), exit())
  await assert.rejects(loadProgram({ type: 'xdp', insns: body }), (error: unknown) => {
    assert.ok(error instanceof VerifierError, String(error))
    assert.ok(error.log.join('\n').length > 64 * 1024, `${error.log.join('\n').length} bytes`)
    assert.ok(error.log[0]!.startsWith('0: '), 'the log begins with the first instruction')
    assert.match(error.message, /R2 !read_ok/)
    return true
  })
})

kernelTest('Program.load() keeps the log of a good program when asked for it', async () => {
  using program = await loadProgram({ type: 'xdp', insns: PASS, logLevel: 1 })
  assert.ok(program.log.some(line => /processed \d+ insns/.test(line)))
})

kernelTest('Program.load() throws SyscallError when it does not come to verification', async () => {
  await assert.rejects(
    loadProgram({ type: 'xdp', insns: PASS, name: 'odd', flags: 0x4000_0000 }),
    (error: unknown) => {
      assert.ok(error instanceof SyscallError)
      assert.match(error.message, /bpf\(BPF_PROG_LOAD\) on program ".*odd" \(xdp\) failed with EINVAL/)
      return true
    },
  )
  await assert.rejects(loadProgram({ type: 'xdp', insns: [] }), errno('E2BIG'))
  await assert.rejects(
    loadProgram({ type: 'xpd' as ProgType, insns: PASS }),
    /there is no program type "xpd"/,
  )
})

kernelTest('Program.load() lets a GPL-only helper in for GPL and refuses it without a licence', async () => {
  const insns = [
    mov64(R1, R10),
    alu64('+=', R1, -8),
    store('u64', R10, -8, 0),
    mov64(R2, 8),
    call('trace_printk'),
  ]
  const all = [...insns, mov64(R0, 0), exit()]
  using allowed = await loadProgram({ type: 'socket_filter', insns: all, license: 'GPL' })
  assert.equal(allowed.info().gplCompatible, true)
  await assert.rejects(loadProgram({ type: 'socket_filter', insns: all, license: '' }), VerifierError)
})

kernelTest('testRun() runs the program, repeatedly, and gives its result and data', async () => {
  using map = counter()
  using program = await loadProgram({ type: 'xdp', insns: countAndReturn(map, 2) })
  const result = await program.testRun({ dataIn: PACKET, repeat: 10 })
  assert.equal(result.returned, 2)
  assert.equal(result.data.length, PACKET.length)
  assert.equal(count(map), 10)
  assert.deepEqual(program.info().mapIds, [map.info().id])
})

kernelTest('testRun() fails with EINVAL for a packet too short and ENOSPC for room too small', async () => {
  using program = await loadProgram({ type: 'xdp', insns: PASS })
  await assert.rejects(program.testRun({ dataIn: new Uint8Array(4) }), errno('EINVAL'))
  await assert.rejects(program.testRun({ dataIn: PACKET, dataOutBytes: 8 }), errno('ENOSPC'))
  using kprobe = await loadProgram({ type: 'sk_msg', insns: [mov64(R0, 1), exit()] })
  await assert.rejects(kprobe.testRun({ dataIn: PACKET }), errno('ENOTSUPP'))
})

kernelTest('testRun() gives the context back that a syscall program wrote', async () => {
  using program = await loadProgram({
    type: 'syscall',
    flags: 0x10,
    insns: [store('u64', R1, 8, 5), mov64(R0, 0), exit()],
  })
  const { context } = await program.testRun({ contextIn: new Uint8Array(16) })
  assert.equal(context[8], 5)
})

kernelTest('open() gives a pinned program back, and refuses a pinned map', async () => {
  using bpffs = privateBpffs()
  using program = await loadProgram({ type: 'xdp', insns: PASS })
  program.pin(path.join(bpffs.path, 'prog'))
  using again = Program.open(path.join(bpffs.path, 'prog'))
  assert.equal(again.info().id, program.info().id)
  assert.equal(again.info().tag, program.info().tag)
  assert.throws(() => BpfMap.open(path.join(bpffs.path, 'prog')), /not a BPF map, but anon_inode:bpf-prog/)
})

kernelTest('programIds() lists a program while it lives, and fromId() opens it', async () => {
  using program = await loadProgram({ type: 'xdp', insns: PASS })
  const { id } = program.info()
  assert.ok([...programIds()].includes(id))
  using same = Program.fromId(id)
  assert.equal(same.info().tag, program.info().tag)
  assert.throws(() => Program.fromId(0x7fff_ffff), errno('ENOENT'))
})

kernelTest('bindMap() keeps a map alive as long as the program', async () => {
  using program = await loadProgram({ type: 'xdp', insns: PASS })
  const map = counter()
  const { id } = map.info()
  program.bindMap(map)
  map.close()
  assert.deepEqual(program.info().mapIds, [id])
  using held = BpfMap.fromId(id)
  assert.equal(held.info().id, id)
})

kernelTest('BtfObject.load() gives the kernel BTF that reads back the same', async () => {
  const builder = new BtfBuilder()
  builder.int('int', 4, { signed: true })
  const bytes = builder.build()
  using object = await BtfObject.load(bytes)
  const info = object.info()
  assert.equal(info.kernel, false)
  assert.equal(info.sizeBytes, bytes.length)
  assert.deepEqual(Buffer.from(object.raw()), Buffer.from(bytes))
  assert.ok([...btfIds()].includes(info.id))
  using same = BtfObject.fromId(info.id)
  assert.equal(same.info().id, info.id)
})

kernelTest('BtfObject.load() says what the kernel found wrong', async () => {
  const builder = new BtfBuilder()
  builder.const(77)
  await assert.rejects(BtfObject.load(builder.build()), (error: unknown) => {
    assert.ok(error instanceof SyscallError)
    assert.equal(error.errnoName, 'EINVAL')
    assert.match(error.hint ?? '', /^The kernel says: /)
    assert.match(String(error.context['log']), /Invalid/)
    return true
  })
  await assert.rejects(BtfObject.load(new Uint8Array(8)), errno('EINVAL'))
})

kernelTest('BtfObject.fromId() knows the kernel’s own BTF by name', () => {
  const names = [...btfIds()].map(id => {
    using object = BtfObject.fromId(id)
    return object.info()
  })
  const vmlinux = names.find(info => info.name === 'vmlinux')
  assert.equal(vmlinux?.kernel, true)
  assert.equal(vmlinux?.sizeBytes, readFileSync('/sys/kernel/btf/vmlinux').length)
})
