/** Programs run with packets and contexts, as people's own tests do; as root and under a token. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type LoadedObject, type LoadOptions, loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { ethernet, ipv4, ipv6, packet, tcp, udp } from '../../../src/ebpf/test-run/packet.ts'
import { runProgram } from '../../../src/ebpf/test-run/run-program.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { LoadLab } from './load-lab.ts'

const file = join(ROOT, 'test/fixtures/answers.bpf.o')

before(() => traceFds())
after(async () => {
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

function load(options: LoadOptions = {}): Promise<LoadedObject> {
  return loadObject(parseObject(readFileSync(file), { name: 'answers' }), { token: null, ...options })
}

test('an XDP program says what becomes of packets, and changes them', needsTokens(), async () => {
  using object = await load({ constants: { port: 443 } })
  const filter = object.program('filter')
  const to = (destinationPort: number) => packet(ethernet(), ipv4({ ttl: 9 }), tcp({ destinationPort }), 'x')
  const passed = await runProgram(filter, { packet: to(80) })
  assert.deepEqual([passed.verdict, passed.returned], ['pass', 2])
  assert.equal(passed.packet[22], 8, 'its TTL')
  assert.deepEqual([passed.packet.length, passed.packet.at(-1)], [to(80).length, 'x'.charCodeAt(0)])
  assert.equal((await runProgram(filter, { packet: to(443) })).verdict, 'drop')
  assert.equal(
    (await runProgram(filter, { packet: packet(ethernet(), ipv4(), udp({ destinationPort: 443 })) })).verdict,
    'drop',
  )
  assert.equal(
    (await runProgram(filter, { packet: packet(ethernet(), ipv6(), tcp({ destinationPort: 443 })) })).verdict,
    'pass',
  )
  assert.equal((await runProgram(filter, { packet: new Uint8Array(20) })).verdict, 'aborted')
})

test('a program is run often, and the time of one run is told', needsTokens(), async () => {
  using object = await load()
  const bytes = packet(ethernet(), ipv4({ ttl: 255 }), tcp({ destinationPort: 1 }))
  const { packet: after, durationNs } = await runProgram(object.program('filter'), {
    packet: bytes,
    repeat: 100,
  })
  // The same packet each time.
  assert.equal(after[22], 155)
  assert.ok(Number.isInteger(durationNs) && durationNs >= 0)
})

test('contexts are given by name, and come back so', needsTokens(), async () => {
  using object = await load()
  const bytes = packet(ethernet(), ipv4(), udp())
  const marked = object.program('marked')
  assert.equal((await runProgram(marked, { packet: bytes })).verdict, 'drop')
  const { verdict, returned, context } = await runProgram(marked, {
    packet: bytes,
    context: { mark: 7, priority: 41 },
  })
  assert.deepEqual([verdict, returned], ['next', -1])
  assert.ok(!(context instanceof Uint8Array))
  assert.deepEqual([context['mark'], context['cb']], [42, [5, 0, 0, 0, 0]])
  const { returned: index } = await runProgram(object.program('where'), {
    packet: bytes,
    // The loopback device has one queue.
    context: { ingress_ifindex: 1, rx_queue_index: 0 },
  })
  assert.equal(index, 1)
})

test('a context that there is not is refused, by name', needsTokens(), async () => {
  using object = await load()
  const bytes = packet(ethernet(), ipv4(), udp())
  const marked = object.program('marked')
  await assert.rejects(runProgram(marked, { packet: bytes, context: { nothing: 1 } }), {
    code: 'BPFTOKEN_INPUT',
    message: /no member "nothing"/,
  })
  await assert.rejects(runProgram(marked, { packet: bytes, context: { mark: 2 ** 32 } }), {
    code: 'BPFTOKEN_INPUT',
    message: /mark takes 0 to/,
  })
  await assert.rejects(runProgram(marked, { packet: bytes, context: {}, args: [1n] }), {
    code: 'BPFTOKEN_INPUT',
  })
  // The kernel's own refusal: this member is not for callers to set.
  await assert.rejects(runProgram(marked, { packet: bytes, context: { len: 5 } }), { errnoName: 'EINVAL' })
})

test('under a token a program is run too: it takes no right', needsTokens(), async () => {
  const lab = await LoadLab.start(['bpf', 'net_admin'])
  try {
    const lent = await lab.load(EVERYTHING, { file, run: 'filter' })
    assert.deepEqual([lent.ok, lent.token, lent.verdict], [true, true, 'drop'], lent.message)
    const alone = await lab.load({ cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }, { file, run: 'filter' })
    assert.deepEqual([alone.ok, alone.errnoName], [false, 'EPERM'])
  } finally {
    lab[Symbol.dispose]()
    await lab.ended
  }
})
