// One object, loaded twice with other constants: the verifier takes them for the numbers they are.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ethernet, ipv4, loadObject, packet, parseObject, runProgram, tcp } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const spec = parseObject(readFileSync(join(__dirname, 'filter.bpf.o')), { name: 'filter' })
  const request = packet(ethernet(), ipv4(), tcp({ destinationPort: 443 }))
  for (const constants of [
    { port: 443, mode: 'MODE_DROP' },
    { port: 443, mode: 'MODE_COUNT' },
  ]) {
    using object = await loadObject(spec, { constants })
    const { verdict } = await runProgram(object.program('filter'), { packet: request })
    console.log(`${constants.mode}: ${verdict}`)
  }
  // What does not fit is refused before anything is made.
  const refused = await loadObject(spec, { constants: { port: 70000 } }).catch((error: Error) => error)
  console.log((refused as Error).message)
}
void main()
