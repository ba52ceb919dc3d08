// A map of counters for each tenant: made when the tenant comes, and put into the map of maps.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BpfMap, ethernet, ipv4, loadObject, packet, parseObject, runProgram, udp } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const spec = parseObject(readFileSync(join(__dirname, 'tenants.bpf.o')), { name: 'tenants' })
  using object = await loadObject(spec)
  const loopback = 1
  const bytes = packet(ethernet(), ipv4(), udp())
  const options = { packet: bytes, context: { ingress_ifindex: loopback } }
  const count = object.program('count')
  console.log(`no tenant: ${(await runProgram(count, options)).verdict}`)
  // As the pattern in the program's source says: an array of one number.
  using counters = BpfMap.create({
    type: 'array',
    keyBytes: 4,
    valueBytes: 8,
    maxEntries: 1,
    name: 'tenant1',
  })
  const key = new Uint8Array(new Uint32Array([loopback]).buffer)
  object.map('tenants').updateFd(key, counters)
  for (let i = 0; i < 3; i++) await runProgram(count, options)
  console.log(`its packets: ${new DataView(counters.lookup(0)!.buffer).getBigUint64(0, true)}`)
}
void main()
