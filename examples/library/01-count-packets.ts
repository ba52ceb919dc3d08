// Counts the packets of the loopback device with XDP. The counter is a global variable of the program.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { attachProgram, GlobalVariables, loadObject, parseObject } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const spec = parseObject(readFileSync(join(__dirname, 'filter.bpf.o')), { name: 'filter' })
  using object = await loadObject(spec)
  using _link = attachProgram(object, 'filter', { kind: 'xdp', device: 'lo', mode: 'skb' })
  const receiver = createSocket('udp4').bind(0, '127.0.0.1')
  await once(receiver, 'listening')
  const arrived = once(receiver, 'message')
  const sender = createSocket('udp4')
  sender.send('hello', receiver.address().port, '127.0.0.1')
  await arrived
  sender.close()
  receiver.close()
  const section = spec.maps.find(({ name }) => name === '.bss')!
  const variables = new GlobalVariables(spec.btf!.types, section.valueTypeId)
  const packets = variables.get(object.map('.bss').lookup(0)!, 'packets') as bigint
  console.log(packets > 0n ? 'packets were counted' : 'nothing was seen')
}
void main()
