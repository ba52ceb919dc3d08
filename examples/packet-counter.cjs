// Counts packets on the loopback device with XDP, as an ordinary user. Run it with rights that were lent:
//
//   bpftoken run --policy examples/policies/packet-counter.yaml -- node examples/packet-counter.cjs [COUNT]
//
// Nothing here mentions a token: each command finds the one at /sys/fs/bpf by itself.
const dgram = require('node:dgram')
const {
  alu64,
  atomic,
  attachXdp,
  BpfMap,
  call,
  exit,
  jumpIf,
  label,
  ldMapFd,
  load,
  mov64,
  Program,
  R0,
  R1,
  R2,
  R3,
  R4,
  R6,
  R7,
  R10,
  RingBuffer,
  store,
  toBe,
} = require('bpftoken/ebpf')

const LOOPBACK = 1 // Its index in every network namespace.
const XDP_PASS = 2

/** Adds one to counts[0], and tells the length in each IPv4 header through the ring buffer. */
function counter(counts, lengths) {
  return [
    // struct xdp_md: data @0, data_end @4. Frames shorter than their headers just pass.
    load('u32', R6, R1, 0),
    load('u32', R7, R1, 4),
    mov64(R2, R6),
    alu64('+=', R2, 34),
    jumpIf('>', R2, R7, 'pass'),
    // Ethernet 14 bytes, then the length of the datagram @2, in network order.
    load('u16', R7, R6, 16),
    toBe(R7, 16),
    store('u64', R10, -8, R7),
    store('u32', R10, -12, 0),
    ldMapFd(R1, counts.fd.number),
    mov64(R2, R10),
    alu64('+=', R2, -12),
    call('map_lookup_elem'),
    jumpIf('==', R0, 0, 'pass'),
    mov64(R1, 1),
    atomic('add', 'u64', R0, 0, R1),
    ldMapFd(R1, lengths.fd.number),
    mov64(R2, R10),
    alu64('+=', R2, -8),
    mov64(R3, 8),
    mov64(R4, 0),
    call('ringbuf_output'),
    label('pass'),
    mov64(R0, XDP_PASS),
    exit(),
  ]
}

/** Sends `count` datagrams to ourselves, and waits until they have arrived. */
async function traffic(count) {
  const socket = dgram.createSocket('udp4')
  await new Promise(resolve => socket.bind(0, '127.0.0.1', resolve))
  const { port } = socket.address()
  const all = new Promise(resolve => {
    let seen = 0
    socket.on('message', () => ++seen === count && resolve())
  })
  for (let i = 0; i < count; i++) socket.send(Buffer.alloc(100 + i), port, '127.0.0.1')
  await all
  socket.close()
}

async function main() {
  const wanted = Number(process.argv[2] ?? 10)
  const counts = BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 8, maxEntries: 1, name: 'counts' })
  const lengths = BpfMap.create({ type: 'ringbuf', maxEntries: 65536, name: 'lengths' })
  console.log('made an array and a ring buffer')
  const program = await Program.load({
    type: 'xdp',
    expectedAttachType: 'xdp',
    name: 'counter',
    license: 'Dual BSD/GPL',
    insns: counter(counts, lengths),
  })
  console.log('loaded an XDP program')
  const link = attachXdp(program, { ifindex: LOOPBACK })
  console.log('attached it to lo')
  await traffic(wanted)

  const total = new DataView(counts.lookup(0).buffer).getBigUint64(0, true)
  const ring = new RingBuffer(lengths)
  const sizes = []
  ring.drain(record => sizes.push(Number(new DataView(record.buffer).getBigUint64(0, true))))
  ring[Symbol.dispose]()
  console.log(`counted ${total} packets; lengths seen: ${sizes.join(' ')}`)
  for (const object of [link, program, counts, lengths]) object.close()
  if (total < wanted) throw new Error(`only ${total} of ${wanted} packets were counted`)

  // One more thing, which nobody lent us.
  const probe = await Program.load({ type: 'kprobe', license: 'GPL', insns: [mov64(R0, 0), exit()] }).catch(
    e => e,
  )
  if (!(probe instanceof Error)) {
    console.log('loaded a kprobe program as well')
    return probe.close()
  }
  console.log(`a kprobe program: ${probe.message}`)
  if (probe.hint) console.log(`  ${probe.hint}`)
}

main().catch(error => {
  console.error(`packet-counter: ${error.message}`)
  if (error.hint) console.error(`  ${error.hint}`)
  process.exitCode = 1
})
