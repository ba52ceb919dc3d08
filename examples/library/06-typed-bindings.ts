// The same object by its types: `bpftoken obj types filter.bpf.o -o filter.ts` wrote filter.ts.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ethernet, ipv4, packet, runProgram, tcp } from 'bpftoken/ebpf'
import { filter, Mode } from './filter.ts'

async function main(): Promise<void> {
  const file = readFileSync(join(__dirname, 'filter.bpf.o'))
  using object = await filter.load(file, { constants: { port: 22, mode: Mode.MODE_DROP } })
  const login = packet(ethernet(), ipv4({ source: '10.0.0.9' }), tcp({ destinationPort: 22 }))
  await runProgram(object.programs.filter, { packet: login })
  const dropped = object.maps.drops.read()
  console.log(`dropped ${dropped?.bytes} bytes for port ${dropped?.port}`)
  object.data.packets = 0n
  await runProgram(object.programs.filter, { packet: login, repeat: 5 })
  console.log(`${object.data.packets} packets since then, ${object.data.matched} for the port`)
}
void main()
