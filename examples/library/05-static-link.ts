// A program and a library, compiled apart and made one object.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ethernet, ipv4, linkObjects, loadObject, packet, parseObject, runProgram, udp } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const input = (name: string) => ({ name, bytes: readFileSync(join(__dirname, name)) })
  const { bytes, unresolved } = linkObjects([input('user.bpf.o'), input('library.bpf.o')])
  console.log(`unresolved: ${unresolved.length}`)
  using object = await loadObject(parseObject(bytes, { name: 'both' }))
  for (const size of [10, 200, 201])
    await runProgram(object.program('sized'), {
      packet: packet(ethernet(), ipv4(), udp(), new Uint8Array(size)),
    })
  const sizes = [...object.map('sizes').entries()].map(([key, value]) => ({
    bytes: new DataView(key.buffer).getUint32(0, true) * 64,
    count: new DataView(value.buffer).getBigUint64(0, true),
  }))
  for (const { bytes: from, count } of sizes.sort((a, b) => a.bytes - b.bytes))
    console.log(`from ${from} bytes: ${count}`)
}
void main()
