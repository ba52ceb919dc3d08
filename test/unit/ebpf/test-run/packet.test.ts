import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ethernet, ipv4, ipv6, packet, tcp, udp } from '../../../../src/ebpf/test-run/packet.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

test('packet() makes the bytes that are on the wire', () => {
  // RFC 1071's sums, worked out by hand for this datagram.
  const bytes = packet(
    ethernet({ source: '00:11:22:33:44:55', destination: '66:77:88:99:aa:bb' }),
    ipv4({ source: '192.0.2.1', destination: '192.0.2.2', id: 1, ttl: 64 }),
    udp({ sourcePort: 1, destinationPort: 2 }),
    'ab',
  )
  assert.equal(
    hex(bytes),
    `66778899aabb001122334455${'0800'}${'4500001e00010000401176cbc0000201c0000202'}${'00010002000a1ab2'}${'6162'}`
      .replace(
        '1ab2',
        udpSum(['c000', '0201', 'c000', '0202', '0011', '000a', '0001', '0002', '000a', '6162']),
      )
      .replace('76cb', udpSum(['4500', '001e', '0001', '0000', '4011', 'c000', '0201', 'c000', '0202'])),
  )
})

/** One's complement of the one's complement sum, in big integers. */
function udpSum(words: readonly string[]): string {
  const sum = words.reduce((all, word) => all + BigInt(`0x${word}`), 0n)
  return Number(0xffffn - (sum % 0xffffn))
    .toString(16)
    .padStart(4, '0')
}

test('each header announces the next one', () => {
  const types = (bytes: Uint8Array, at: number) => hex(bytes.subarray(at, at + 2))
  assert.equal(types(packet(ethernet(), ipv4()), 12), '0800')
  assert.equal(types(packet(ethernet(), ipv6()), 12), '86dd')
  assert.equal(types(packet(ethernet({ type: 0x88cc }), 'x'), 12), '88cc')
  assert.equal(packet(ipv4(), tcp())[9], 6)
  assert.equal(packet(ipv4(), udp())[9], 17)
  assert.equal(packet(ipv6(), tcp())[6], 6)
  assert.equal(packet(ipv4({ protocol: 1 }), 'x')[9], 1)
})

test('lengths are those of what follows, and sums are right over all of it', () => {
  const bytes = packet(
    ethernet(),
    ipv6({ source: '2001:db8::1', destination: '::1' }),
    tcp({ flags: ['syn', 'ack'] }),
    'payload',
  )
  assert.equal(bytes.length, 14 + 40 + 20 + 7)
  const view = new DataView(bytes.buffer)
  assert.equal(view.getUint16(14 + 4), 27)
  assert.equal(bytes[14 + 40 + 13], 0x12)
  // With its checksum in place, a segment sums up to zero.
  const segment = Buffer.concat([
    bytes.subarray(14 + 8, 14 + 40),
    Buffer.from([0, 0, 0, 27, 0, 0, 0, 6]),
    bytes.subarray(54),
    Buffer.alloc(1),
  ])
  let sum = 0
  for (let i = 0; i < segment.length; i += 2) sum += segment.readUInt16BE(i)
  assert.equal(sum % 0xffff, 0)
  assert.equal(hex(bytes.subarray(22, 38)), '20010db8000000000000000000000001')
})

test('what is no address, number or size is refused', () => {
  for (const make of [
    () => ethernet({ source: '1:2:3:4:5:6' }),
    () => ipv4({ source: '1.2.3' }),
    () => ipv6({ source: '1.2.3.4' }),
    () => ipv6({ source: 'fe80::1%lo' }),
    () => packet(ipv4({ ttl: 256 })),
    () => packet(tcp({ destinationPort: 65536 })),
    () => packet(udp({ sourcePort: -1 })),
    () => packet(new Uint8Array(65536)),
  ])
    assert.throws(make, { code: 'BPFTOKEN_INPUT' })
})
