// Runs with rights that were lent, and says what it does with them:
//
//   bpftoken run --policy examples/policies/packet-counter.yaml -- node ... 09-under-a-token.ts
//
// A loader need not mention its token: the library finds it at /sys/fs/bpf. Here it is shown.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defaultToken, ethernet, ipv4, loadObject, packet, parseObject, runProgram, tcp } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const token = defaultToken()
  console.log(token === undefined ? 'with own capabilities' : `with the token of ${token.path}`)
  const spec = parseObject(readFileSync(join(__dirname, 'filter.bpf.o')), { name: 'filter' })
  using object = await loadObject(spec)
  const { verdict } = await runProgram(object.program('filter'), {
    packet: packet(ethernet(), ipv4(), tcp()),
  })
  console.log(`the program says ${verdict}`)
  // What was not lent is refused, and the error says what was missing.
  const exec = parseObject(readFileSync(join(__dirname, 'exec.bpf.o')), { name: 'exec' })
  try {
    using _traced = await loadObject(exec)
    console.log('tracing works too')
  } catch (error) {
    console.log(`tracing: ${(error as { hint?: string }).hint}`)
  }
}
void main()
