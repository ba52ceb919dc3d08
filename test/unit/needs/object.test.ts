/**
 * objectNeeds(): commands, capabilities, and what the file does not decide; loaderNeeds(): what
 * probes add.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { MapDefinition } from '../../../src/ebpf/object/map-def.ts'
import { sectionName } from '../../../src/ebpf/object/section-names.ts'
import { type ObjectMap, type ObjectSpec, parseObject } from '../../../src/ebpf/object/spec.ts'
import { neededRights } from '../../../src/ebpf/rights.ts'
import { type LoaderNeed, loaderNeeds } from '../../../src/needs/loader-probes.ts'
import { helpersOf, type NeedsOptions, objectNeeds } from '../../../src/needs/object.ts'
import { type CorpusObject, corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'

const PASS = parseObject(xdpObject(), { name: 'pass' })

/** The smallest object with its program in another section, and with other code. */
function withProgram(section: string, code = PASS.functions[0]!.code): ObjectSpec {
  const found = sectionName(section)
  const program = { ...PASS.programs[0]!, section, rule: found?.rule, target: found?.target }
  return { ...PASS, programs: [program], functions: [{ ...PASS.functions[0]!, code }] }
}

const rightsOf = (spec: ObjectSpec, options?: NeedsOptions) =>
  objectNeeds(spec, options).needs.flatMap(({ need }) =>
    neededRights(need).map(({ domain, word }) => `${domain} ${word}`),
  )
const capabilitiesOf = (spec: ObjectSpec) => objectNeeds(spec).needs.flatMap(one => one.capabilities)
const probesOf = (needs: readonly LoaderNeed[]) =>
  needs.map(({ need }) => need.mapType ?? `${need.progType}/${need.attachType ?? 0}`)

function corpus(test: (object: CorpusObject) => boolean): ObjectSpec {
  const object = corpusObjects().find(test)
  assert.ok(object)
  return parseObject(readFileSync(corpusFile(object)), { name: object.hash })
}

test("objectNeeds() takes the kernel's fix-ups of attach types into account", () => {
  assert.deepEqual(rightsOf(withProgram('kprobe/f')), [
    'cmds prog_load',
    'progs kprobe',
    'attachs cgroup_inet_ingress',
  ])
  assert.deepEqual(rightsOf(withProgram('sk_reuseport')).slice(1), [
    'progs sk_reuseport',
    'attachs sk_reuseport_select',
  ])
  const [asZero] = neededRights({ cmd: 'prog_load', progType: 'cgroup_sock' }).slice(2)
  assert.equal(asZero?.word, 'cgroup_inet_sock_create')
})

test('objectNeeds() names attach types that are newer than most kernels', () => {
  const [, , attach] = neededRights(objectNeeds(withProgram('fsession/f')).needs[0]!.need)
  assert.deepEqual(attach, { domain: 'attachs', bit: 58, word: 'trace_fsession' })
})

test('objectNeeds() calls a section without a rule a problem, unless its programs are left out', () => {
  const unknown = withProgram('loadbalancer')
  assert.match(
    objectNeeds(unknown).problems[0]!,
    /^program "let_pass" in section "loadbalancer": type unknown/,
  )
  assert.deepEqual(objectNeeds(unknown, { programs: [] }).problems, [])
  assert.deepEqual(rightsOf(withProgram('xdp_filter')), [])
  assert.deepEqual(rightsOf(withProgram('xdp_filter'), { looseSections: true })[1], 'progs xdp')
})

test('objectNeeds() opens the types of the program that an extension replaces', () => {
  const spec = withProgram('freplace/f')
  assert.deepEqual(rightsOf(spec).slice(-1), ['cmds btf_get_fd_by_id'])
  assert.deepEqual([...new Set(capabilitiesOf(spec))].sort(), [
    'CAP_BPF',
    'CAP_NET_ADMIN',
    'CAP_PERFMON',
    'CAP_SYS_ADMIN',
  ])
})

test('objectNeeds() opens the types of a module that a section names, and says so where it may be one', () => {
  const named = withProgram('fexit/nf_nat:bpf_ct_set_nat_info')
  assert.ok(rightsOf(named).includes('cmds btf_get_fd_by_id'))
  assert.ok(capabilitiesOf(named).includes('CAP_SYS_ADMIN'))
  assert.deepEqual(objectNeeds(named).notes, [
    'program "let_pass" attaches to module "nf_nat": it has to be loaded, and opening its types under a token needs Linux 6.15',
  ])
  for (const target of ['vfs_read', 'vmlinux:vfs_read']) {
    const open = withProgram(`fexit/${target}`)
    assert.ok(!rightsOf(open).includes('cmds btf_get_fd_by_id'), target)
    assert.ok(!capabilitiesOf(open).includes('CAP_SYS_ADMIN'), target)
  }
  assert.match(
    objectNeeds(withProgram('fexit/vfs_read')).notes.join(),
    /^if a module, .* has "vfs_read": load/,
  )
  assert.deepEqual(objectNeeds(withProgram('fexit/vmlinux:vfs_read')).notes, [])
})

test('objectNeeds() sees the capabilities that helpers need, also in sub-programs', () => {
  const call = (helper: number) => {
    const code = Buffer.alloc(24)
    code[0] = 0x85
    code.writeInt32LE(helper, 4)
    Buffer.from(PASS.functions[0]!.code).copy(code, 8)
    return code
  }
  assert.deepEqual(capabilitiesOf(withProgram('xdp')), ['CAP_BPF', 'CAP_NET_ADMIN'])
  const printk = withProgram('xdp', call(6))
  assert.deepEqual(capabilitiesOf(printk), ['CAP_BPF', 'CAP_NET_ADMIN', 'CAP_PERFMON'])
  const [main, sub] = [PASS.functions[0]!, { ...PASS.functions[0]!, code: call(6) }]
  const calls = {
    ...PASS,
    functions: [{ ...main, references: [{ kind: 'function' as const, slot: 0, target: 1 }] }, sub],
  }
  assert.deepEqual([...helpersOf(calls, calls.programs[0]!)], [6])
  // The second slot of a 64-bit constant is no instruction.
  const constant = Buffer.concat([Buffer.from('1800000000000000', 'hex'), call(6).subarray(0, 8)])
  assert.deepEqual([...helpersOf(withProgram('xdp', constant), PASS.programs[0]!)], [])
})

test('objectNeeds() asks for maps, inner maps and global data', needsCorpus(), () => {
  const spec = corpus(({ name }) => /\/btf_map_init-el|\/map_spin_lock-el|\/loader-clang-11-el/.test(name))
  const asked = rightsOf(spec)
  for (const { type, inner } of spec.maps) {
    assert.ok(asked.includes(`maps ${type}`), type)
    if (inner !== undefined) assert.ok(asked.includes(`maps ${inner.type}`), inner.type)
  }
  assert.equal(asked.includes('cmds btf_load'), spec.btf !== undefined)
})

test('objectNeeds() asks for the type of inner maps that is no map of the object', () => {
  const rest = { keyTypeId: 0, valueTypeId: 0, pinByName: false, foreign: undefined, values: [] }
  const sizes = { keyBytes: 4, valueBytes: 4, maxEntries: 1, flags: 0, extra: 0n, numaNode: undefined }
  const inner: MapDefinition = { name: 'outer.inner', type: 'lpm_trie', inner: undefined, ...sizes, ...rest }
  const more = { kind: 'declared', autocreate: true } as const
  const outer: ObjectMap = { ...inner, name: 'outer', type: 'array_of_maps', inner, ...more }
  const asked = (spec: ObjectSpec): string[] => rightsOf(spec).filter(right => right.startsWith('maps '))
  assert.deepEqual(asked({ ...PASS, maps: [outer] }).sort(), ['maps array_of_maps', 'maps lpm_trie'])
  assert.deepEqual(asked({ ...PASS, maps: [{ ...outer, inner: undefined }] }), ['maps array_of_maps'])
})

test("objectNeeds() takes a struct_ops program's attach type from the kernel's struct", needsCorpus(), () => {
  const spec = corpus(({ sections }) => sections.includes('.struct_ops.link'))
  const [member] = spec.maps.find(({ structOps }) => structOps !== undefined)!.structOps!.programs.keys()
  const attachOf = (kernelStruct?: NeedsOptions['kernelStruct']) =>
    objectNeeds(spec, { kernelStruct }).needs.find(({ rule }) => rule?.type === 'struct_ops')?.need.attachType
  assert.equal(
    attachOf(() => ['first', 'second', member!]),
    2,
  )
  // A kernel without the member: its program is left out.
  assert.equal(
    attachOf(() => ['first']),
    undefined,
  )
  const many = Array.from({ length: 100 }, (_, i) => `m${i}`)
  const beyond = objectNeeds(spec, { kernelStruct: () => [...many, member!] })
  assert.ok(beyond.problems.some(problem => problem.includes('no token can lend it')))
  assert.equal(typeof attachOf(), 'number')
})

test('loaderNeeds() adds probes only where the object gives cause', () => {
  const probes = (spec: ObjectSpec, loader: 'libbpf' | 'cilium-ebpf' | 'aya' | 'bpftoken') =>
    probesOf(loaderNeeds(loader, spec, objectNeeds(spec).needs))
  assert.deepEqual(probes(PASS, 'bpftoken'), [])
  for (const loader of ['libbpf', 'cilium-ebpf', 'aya'] as const)
    assert.deepEqual(probes(PASS, loader), ['socket_filter/0'], loader)
  assert.deepEqual(probes(withProgram('usdt'), 'libbpf'), ['socket_filter/0', 'kprobe/trace_uprobe_multi'])
  const reads = Buffer.from('8500000071000000' + '9500000000000000', 'hex')
  assert.deepEqual(probes(withProgram('xdp', reads), 'libbpf'), ['socket_filter/0', 'tracepoint/0'])
  assert.deepEqual(probes(withProgram('xdp', reads), 'cilium-ebpf'), ['socket_filter/0', 'kprobe/0'])
})

test('loaderNeeds() wants array maps for global data', needsCorpus(), () => {
  const spec = corpus(({ name, sections }) => name.startsWith('libbpf-tools') && sections.includes('.bss'))
  assert.ok(probesOf(loaderNeeds('libbpf', spec, objectNeeds(spec).needs)).includes('array'))
})

/** As many programs as said, which all call one function of that size and with so many accesses. */
function sharing(programs: number, slots: number, accesses = 0): ObjectSpec {
  const [own, program] = [PASS.functions[0]!, PASS.programs[0]!]
  const coreRelos = Array.from({ length: accesses }, () => ({ slot: 0, kind: 0, typeId: 1, access: '0' }))
  const calling = { ...own, references: [{ kind: 'function', slot: 0, target: 0 }] as const }
  return {
    ...PASS,
    functions: [
      { ...own, code: new Uint8Array(slots * 8), coreRelos },
      ...Array.from({ length: programs }, () => ({ ...calling })),
    ],
    programs: Array.from({ length: programs }, (_, i) => ({ ...program, name: `p${i}`, function: i + 1 })),
  }
}

test('objectNeeds() refuses programs that share more code, or accesses, than can be looked at', () => {
  const refused = { name: 'FormatError', message: /share too many functions that are large/ }
  assert.throws(() => objectNeeds(sharing(600, 1 << 17)), refused)
  assert.equal(objectNeeds(sharing(400, 1 << 17)).needs.length, 400)
  assert.throws(() => objectNeeds(sharing(600, 1, 1 << 15)), refused)
  assert.equal(objectNeeds(sharing(400, 1, 1 << 15)).needs.length, 400)
})
