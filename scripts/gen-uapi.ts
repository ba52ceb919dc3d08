/**
 * Generates src/uapi/bpf.ts from kernel BTF.
 *
 *   npx tsx scripts/gen-uapi.ts [--check] [BTF-FILE]
 *
 * BTF-FILE defaults to /sys/kernel/btf/vmlinux, the running kernel. With --check nothing is
 * written: exit status 1 if the file is not what would be written. BTF has no #defines; those we
 * need are in src/uapi/constants.ts by hand.
 */
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { Btf, type BtfComposite, type BtfEnum, type BtfEnum64, type BtfMember } from '../src/ebpf/btf/btf.ts'
import { formatted, generate } from './generated.ts'

const OUTPUT = 'src/uapi/bpf.ts'
const RUNNING_KERNEL = '/sys/kernel/btf/vmlinux'

/** Named enums, in the order of the output. */
const ENUMS = [
  'bpf_cmd',
  'bpf_map_type',
  'bpf_prog_type',
  'bpf_attach_type',
  'bpf_link_type',
  'bpf_func_id',
  'bpf_perf_event_type',
  'bpf_stats_type',
  'bpf_task_fd_type',
  'bpf_stream_id',
  'bpf_cgroup_iter_order',
  'bpf_addr_space_cast',
  'bpf_cond_pseudo_jmp',
  'bpf_core_relo_kind',
  'btf_func_linkage',
  'xdp_action',
  'tcx_action_base',
]

/** Anonymous enums: our name, and a member to know it by. */
const ANONYMOUS_ENUMS: Record<string, string> = {
  bpf_elem_flags: 'BPF_NOEXIST',
  bpf_map_flags: 'BPF_F_NO_PREALLOC',
  bpf_ringbuf_wakeup_flags: 'BPF_RB_NO_WAKEUP',
  bpf_ringbuf_query_flags: 'BPF_RB_AVAIL_DATA',
  bpf_ringbuf_bits: 'BPF_RINGBUF_BUSY_BIT',
  bpf_perf_index_flags: 'BPF_F_INDEX_MASK',
  bpf_kprobe_multi_flags: 'BPF_F_KPROBE_MULTI_RETURN',
  bpf_uprobe_multi_flags: 'BPF_F_UPROBE_MULTI_RETURN',
  bpf_redirect_flags: 'BPF_F_INGRESS',
  bpf_stack_flags: 'BPF_F_SKIP_FIELD_MASK',
  bpf_local_storage_flags: 'BPF_LOCAL_STORAGE_GET_F_CREATE',
  xdp_attached_mode: 'XDP_ATTACHED_NONE',
}

/**
 * Members of union bpf_attr: our name, and a member to know an anonymous one by, or its own name.
 */
const ATTRS: Record<string, string> = {
  bpf_attr_map_create: 'map_type',
  bpf_attr_map_elem: 'key',
  bpf_attr_map_batch: 'batch',
  bpf_attr_prog_load: 'prog_type',
  bpf_attr_obj: 'pathname',
  bpf_attr_prog_attach: 'attach_bpf_fd',
  bpf_attr_prog_test_run: 'test',
  bpf_attr_get_id: 'next_id',
  bpf_attr_info: 'info',
  bpf_attr_prog_query: 'query',
  bpf_attr_raw_tracepoint: 'raw_tracepoint',
  bpf_attr_btf_load: 'btf',
  bpf_attr_task_fd_query: 'task_fd_query',
  bpf_attr_link_create: 'link_create',
  bpf_attr_link_update: 'link_update',
  bpf_attr_link_detach: 'link_detach',
  bpf_attr_enable_stats: 'enable_stats',
  bpf_attr_iter_create: 'iter_create',
  bpf_attr_prog_bind_map: 'prog_bind_map',
  bpf_attr_token_create: 'token_create',
  bpf_attr_prog_stream_read: 'prog_stream_read',
}

const STRUCTS = [
  'bpf_map_info',
  'bpf_prog_info',
  'bpf_link_info',
  'bpf_btf_info',
  'bpf_token_info',
  'bpf_insn',
]

/** A field of the output: where, and the codec's maker for it. */
interface Leaf {
  name: string
  off: number
  size: number
  maker: string
  note?: string
}

/**
 * All fields of a struct: anonymous parts flattened, named parts flattened with their name as
 * prefix.
 */
export function leaves(btf: Btf, type: BtfComposite, prefix = '', base = 0): Leaf[] {
  const found: Leaf[] = []
  for (let i = 0; i < type.members.length; i++) {
    const member = type.members[i]!
    const off = base + Math.floor(member.bitOff / 8)
    const inner = btf.resolve(member.type)
    if (inner?.kind === 'struct' || inner?.kind === 'union') {
      const deeper = member.name === '' ? prefix : `${prefix}${member.name}_`
      found.push(...leaves(btf, inner, deeper, off))
    } else if (member.bitSize > 0) {
      // The codec has no bit fields: those that share a storage unit become one integer.
      const unit = btf.sizeof(member.type)
      const start = base + Math.floor(member.bitOff / 8 / unit) * unit
      const shared: BtfMember[] = [member]
      while (sharesUnit(type.members[i + 1], member, unit)) shared.push(type.members[++i]!)
      const named = shared.filter(m => m.name !== '')
      found.push({
        name: prefix + named.map(m => m.name).join('_'),
        off: start,
        size: unit,
        maker: `u${unit * 8}(${start})`,
        note: named.map(m => `${m.name}:${m.bitSize} from bit ${m.bitOff % (unit * 8)}`).join(', '),
      })
    } else {
      found.push({
        name: prefix + member.name,
        off,
        size: btf.sizeof(member.type),
        ...maker(btf, member.type, off),
      })
    }
  }
  return found
}

function sharesUnit(next: BtfMember | undefined, first: BtfMember, unitBytes: number): boolean {
  const unit = (m: BtfMember) => Math.floor(m.bitOff / 8 / unitBytes)
  return next !== undefined && next.bitSize > 0 && unit(next) === unit(first)
}

function maker(btf: Btf, id: number, off: number): { maker: string; note?: string } {
  const type = btf.resolve(id)
  const size = btf.sizeof(id)
  if (type?.kind === 'array') return { maker: `bytes(${off}, ${size})` }
  if (type?.kind === 'ptr') return { maker: `u64(${off})` }
  if (type?.kind === 'enum') return { maker: `u${size * 8}(${off})` }
  if (type?.kind !== 'int') throw new Error(`no codec for a field of kind ${type?.kind ?? 'void'}`)
  if (type.signed && size === 4) return { maker: `s32(${off})` }
  // Not worth a maker each in the codec: only bpf_insn.off is a signed half-word.
  return { maker: `u${size * 8}(${off})`, ...(type.signed ? { note: `signed, __s${size * 8}` } : {}) }
}

/** The named enum, or the anonymous one that has an enumerator called `member`. */
function findEnum(btf: Btf, name: string, member?: string): BtfEnum | BtfEnum64 | undefined {
  const named = btf.find(name, 'enum')[0] ?? btf.find(name, 'enum64')[0]
  if (member === undefined) return named === undefined ? undefined : (btf.type(named) as BtfEnum)
  for (const kind of ['enum', 'enum64'] as const) {
    for (const id of btf.ofKind(kind)) {
      if (btf.name(id) !== '') continue
      const type = btf.type(id) as BtfEnum | BtfEnum64
      if (type.values.some(value => value.name === member)) return type
    }
  }
  return undefined
}

function attrPart(btf: Btf, attr: BtfComposite, key: string): BtfComposite | undefined {
  for (const member of attr.members) {
    const part = btf.resolve(member.type)
    if (part?.kind !== 'struct') continue
    if (member.name === '' ? part.members.some(m => m.name === key) : member.name === key) return part
  }
  return undefined
}

/** What the kernel says, by the names of the output. Absent in this kernel: absent here. */
export interface Uapi {
  enums: Map<string, { source: string; values: readonly { name: string; value: number | bigint }[] }>
  structs: Map<string, { source: string; size: number; fields: Leaf[] }>
}

/** Reads everything that src/uapi/bpf.ts is made of. */
export function readUapi(btf: Btf): Uapi {
  const uapi: Uapi = { enums: new Map(), structs: new Map() }
  const addEnum = (name: string, source: string, found: BtfEnum | BtfEnum64 | undefined) => {
    if (found === undefined) return
    // The counts at the end of an enum (__MAX_BPF_CMD, MAX_BPF_LINK_TYPE) are no part of the ABI.
    const values = found.values.filter(value => !/^(__|MAX_)/.test(value.name))
    uapi.enums.set(name, { source, values })
  }
  for (const name of ENUMS) addEnum(name, `enum ${name}`, findEnum(btf, name))
  for (const [name, member] of Object.entries(ANONYMOUS_ENUMS)) {
    addEnum(name, `the anonymous enum of ${member}`, findEnum(btf, name, member))
  }

  const addStruct = (name: string, source: string, type: BtfComposite | undefined) => {
    if (type !== undefined) {
      uapi.structs.set(name, { source, size: type.size, fields: leaves(btf, type) })
    }
  }
  const attrId = btf.find('bpf_attr', 'union')[0]
  if (attrId === undefined) throw new Error("this BTF has no union bpf_attr: is it a kernel's?")
  const attr = btf.type(attrId) as BtfComposite
  for (const [name, key] of Object.entries(ATTRS)) {
    addStruct(name, `union bpf_attr, the part of \`${key}\``, attrPart(btf, attr, key))
  }
  for (const name of STRUCTS) {
    const id = btf.find(name, 'struct')[0]
    addStruct(name, `struct ${name}`, id === undefined ? undefined : (btf.type(id) as BtfComposite))
  }
  return uapi
}

function render(uapi: Uapi, kernel: string): string {
  const out = [
    '/**',
    " * Constants and struct layouts of bpf(2), in the kernel's own spelling. Native endian.",
    ' *',
    ` * GENERATED by scripts/gen-uapi.ts from the BTF of Linux ${kernel}; do not edit.`,
    ' * Regenerate: npx tsx scripts/gen-uapi.ts. Source of all: include/uapi/linux/bpf.h, unless said otherwise.',
    ' * Pointers are u64; fields of a named inner struct carry its name as prefix (`tcx_relative_fd`);',
    ' * members of a union share an offset.',
    ' */',
    "import { bytes, s32, struct, u8, u16, u32, u64 } from './codec.ts'",
  ]
  for (const [name, { source, values }] of uapi.enums) {
    out.push('', `/** ${source}. */`, `export const ${name} = {`)
    for (const v of values) out.push(`  ${v.name}: ${typeof v.value === 'bigint' ? `${v.value}n` : v.value},`)
    out.push('} as const')
  }
  for (const [name, { source, size, fields }] of uapi.structs) {
    out.push('', `/** ${source}. ${size} bytes. */`, `export const ${name} = struct(${size}, {`)
    for (const f of fields) {
      out.push(`  ${f.name}: ${f.maker},${f.note === undefined ? '' : ` // ${f.note}`}`)
    }
    out.push('})')
  }
  return `${out.join('\n')}\n`
}

/** The kernel's release, without what a distribution or a build appends. */
function kernelOf(file: string, bytes: Uint8Array): string {
  if (file === RUNNING_KERNEL) return release().replace(/[-+].*/, '')
  return `${file.split('/').at(-1)} (${bytes.length} bytes)`
}

function main(args: string[]): number {
  const file = args.find(arg => !arg.startsWith('--')) ?? RUNNING_KERNEL
  const bytes = readFileSync(file)
  const text = formatted(OUTPUT, render(readUapi(Btf.parse(bytes)), kernelOf(file, bytes)))
  return generate(OUTPUT, text, args.includes('--check'), `npx tsx scripts/gen-uapi.ts ${file}`) ? 0 : 1
}

if (require.main === module) process.exitCode = main(process.argv.slice(2))
