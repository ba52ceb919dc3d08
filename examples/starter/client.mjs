// Loads counter.bpf.o with the token that it finds, attaches it to a device (lo by default), and
// prints what it counts once a second until Ctrl-C. Node finds bpftoken with `npm install bpftoken`.
import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { attachProgram, GlobalVariables, loadObject, parseObject, RingBuffer } from 'bpftoken/ebpf'

const device = process.argv[2] ?? 'lo'
const spec = parseObject(readFileSync(new URL('counter.bpf.o', import.meta.url)), { name: 'counter' })
const object = await loadObject(spec)
const link = attachProgram(object, 'count', { kind: 'xdp', device })
const events = new RingBuffer(object.map('first_packets'))
const variables = new GlobalVariables(spec.btf.types, spec.maps.find(map => map.name === '.bss').valueTypeId)
console.log(`attached to ${device}`)

// In a network of its own nobody else sends anything.
const socket = createSocket('udp4')

const timer = setInterval(() => {
  socket.send('hello', 9, '127.0.0.1')
  const bytes = object.map('.bss').lookup(0)
  console.log(`${variables.get(bytes, 'packets')} packets, ${variables.get(bytes, 'bytes')} bytes`)
  events.drain(event => console.log(`first packet of protocol ${event[4]}`))
}, 1000)

process.once('SIGINT', () => {
  clearInterval(timer)
  socket.close()
  events[Symbol.dispose]()
  link[Symbol.dispose]() // Detaches.
  object[Symbol.dispose]()
})
