// CO-RE against types from a file, as for kernels that show none of their own: read once, used for
// many objects. Give the file as argument; this kernel's own by default.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { attachProgram, KernelTypes, loadObject, parseObject } from 'bpftoken/ebpf'

async function main(): Promise<void> {
  const file = process.argv[2] ?? '/sys/kernel/btf/vmlinux'
  const kernelTypes = KernelTypes.parse(readFileSync(file), { name: file })
  const spec = parseObject(readFileSync(join(__dirname, 'maps.bpf.o')), { name: 'maps' })
  using object = await loadObject(spec, { kernelTypes })
  using link = attachProgram(object, 'list')
  const bytes = link.readIterator()
  console.log(bytes.length % 8 === 0 ? 'the maps of this machine were listed' : 'half a record')
}
void main()
