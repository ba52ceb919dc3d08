// Tells of programs that are started, by a tracepoint and a ring buffer.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { attachProgram, loadObject, parseObject, RingBuffer, readValue } from 'bpftoken/ebpf'

interface Started {
  pid: number
  comm: string
}

async function main(): Promise<void> {
  const spec = parseObject(readFileSync(join(__dirname, 'exec.bpf.o')), { name: 'exec' })
  const types = spec.btf!.types
  const [type] = types.find('started', 'struct')
  using object = await loadObject(spec)
  using _link = attachProgram(object, 'exec')
  using ring = new RingBuffer(object.map('events'))
  const child = spawn('true')
  for await (const record of ring.records()) {
    const started = readValue(types, type!, record, 0, 'text') as unknown as Started
    if (started.pid !== child.pid) continue
    console.log(`"${started.comm}" was started`)
    break
  }
}
void main()
