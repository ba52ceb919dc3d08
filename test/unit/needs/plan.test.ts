/**
 * planRights() and its texts: what is asked for and by whom, for every object of the corpus too.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { PLAN_WORDS } from '../../../src/cli/plan-words.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { FormatError } from '../../../src/errors.ts'
import { planLines } from '../../../src/needs/format/format.ts'
import { PLAN_FORMATS, type PlanFormat } from '../../../src/needs/format/names.ts'
import { headerVocabulary } from '../../../src/needs/header-words.ts'
import { LOADERS, type Loader } from '../../../src/needs/loader-probes.ts'
import { compareRights, planRights, type RightsPlan } from '../../../src/needs/plan.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import { ANY_MASK, MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'

const XDP = { name: 'pass.o', spec: parseObject(xdpObject(), { name: 'pass' }) }
const words = (plan: RightsPlan) => plan.rights.map(({ domain, word }) => `${domain} ${word}`)
const planText = (plan: RightsPlan, format: PlanFormat) =>
  planLines(plan, format, { seccomp: { is: 'unknown' }, words: PLAN_WORDS }).join('\n')
const reread = (plan: RightsPlan) =>
  parsePolicy(planText(plan, 'yaml'), { source: 'plan', vocabulary: headerVocabulary() })

test('planRights() gives our own loader exactly what one XDP program needs', () => {
  const plan = planRights([XDP], { loader: 'bpftoken' })
  assert.deepEqual(words(plan), ['cmds prog_load', 'progs xdp', 'attachs xdp'])
  assert.deepEqual(plan.masks, { cmds: 1n << 5n, maps: 0n, progs: 1n << 6n, attachs: 1n << 37n })
  assert.deepEqual(
    plan.capabilities.map(({ name }) => name),
    ['bpf', 'net_admin'],
  )
  assert.deepEqual(
    plan.rights.map(({ by, forLoader }) => [by, forLoader]),
    plan.rights.map(() => [['program "let_pass"'], false]),
  )
})

test('planRights() labels what libbpf asks for on its own account', () => {
  const plan = planRights([XDP], { loader: 'libbpf' })
  const labels = plan.rights.map(({ word, forLoader, certain }) => [word, forLoader, certain])
  assert.deepEqual(labels, [
    ['prog_load', false, true],
    ['xdp', false, true],
    ['socket_filter', true, true],
    // Lost when libbpf finds that it cannot load a cgroup_sock program.
    ['xdp', false, false],
    ['cgroup_inet_ingress', true, true],
  ])
  assert.match(planText(plan, 'yaml'), /^ {6}- socket_filter # libbpf's own probes: the trivial/m)
})

test('planRights() leaves out programs that are not chosen, and tells of names that no object has', () => {
  const none = planRights([XDP], { loader: 'bpftoken', programs: ['other'] })
  assert.deepEqual(none.rights, [])
  assert.deepEqual(none.problems, ['no object has a program "other"'])
  assert.deepEqual(planRights([XDP], { loader: 'bpftoken', programs: ['let_pass'] }).problems, [])
})

test('planRights() of several objects is their union, with the names of the objects', () => {
  const plan = planRights([XDP, { ...XDP, name: 'second.o' }], { loader: 'bpftoken' })
  assert.deepEqual(plan.masks, planRights([XDP], { loader: 'bpftoken' }).masks)
  assert.deepEqual(plan.rights[0]?.by, ['pass.o: program "let_pass"', 'second.o: program "let_pass"'])
})

test('planLines() writes what each tool takes', () => {
  const plan = planRights([XDP], { loader: 'libbpf' })
  assert.match(
    planText(plan, 'options'),
    /^delegate_cmds=prog_load,delegate_progs=socket_filter:xdp,delegate_attachs=cgroup_inet_ingress:xdp$/m,
  )
  assert.match(planText(plan, 'options'), /^delegate_cmds=0x20,delegate_progs=0x42,/m)
  const systemd = planText(plan, 'systemd')
  for (const line of [
    'PrivateUsers=yes',
    'DelegateNamespaces=mnt',
    'PrivateBPF=yes',
    'BPFDelegateCommands=BPFProgLoad',
    'BPFDelegatePrograms=BPFProgTypeSocketFilter,BPFProgTypeXdp',
    'BPFDelegateAttachments=BPFCgroupInetIngress,BPFXdp',
  ])
    assert.ok(systemd.split('\n').includes(line), line)
  assert.match(planText(plan, 'lxd'), /^ {2}security\.delegate_bpf\.prog_types: "socket_filter:xdp"$/m)
  assert.match(planText(plan, 'incus'), /^ {2}security\.bpffs\.delegate_progs: "socket_filter,xdp"$/m)
})

test('planLines() keeps names from the file within their comment', () => {
  const [program] = XDP.spec.programs
  const spec = { ...XDP.spec, programs: [{ ...program!, name: 'x\n    cmds: [any]\r\u2028\u001b[2J' }] }
  const plan = planRights([{ name: 'a\nkind: Evil.o', spec }], { loader: 'libbpf' })
  assert.equal(reread(plan).name, 'a-kind-evil')
  for (const format of PLAN_FORMATS) assert.match(planText(plan, format), /^[\x20-\x7e\n]*$/, format)
  assert.deepEqual(reread(plan).rights.masks, plan.masks)
})

test('compareRights() tells what is lacking and what is needless', () => {
  const plan = planRights([XDP], { loader: 'bpftoken' })
  const exact = { masks: plan.masks, capabilities: ['bpf', 'net_admin'] as const }
  const none = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  assert.deepEqual(compareRights(plan, exact), { lacking: [], needless: none, needlessCapabilities: [] })
  const lent = { masks: { ...plan.masks, maps: 2n, progs: 0n }, capabilities: ['bpf', 'perfmon'] as const }
  const compared = compareRights(plan, lent)
  assert.deepEqual(
    compared.lacking.map(({ domain, word }) => [domain, word]),
    [
      ['progs', 'xdp'],
      ['capabilities', 'net_admin'],
    ],
  )
  assert.deepEqual(compared.needless, { ...none, maps: 2n })
  assert.deepEqual(compared.needlessCapabilities, ['perfmon'])
  const any = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
  assert.deepEqual(compareRights(plan, { masks: any, capabilities: ['sys_admin'] }).lacking, [])
})

test('every object of the corpus gives a policy that reads back as exactly its plan', needsCorpus(), () => {
  for (const object of corpusObjects()) {
    let spec: ReturnType<typeof parseObject>
    try {
      spec = parseObject(readFileSync(corpusFile(object)), { name: object.hash })
    } catch (error) {
      assert.ok(error instanceof FormatError, object.name)
      continue
    }
    const plans = new Map<Loader, RightsPlan>()
    for (const loader of LOADERS) {
      const plan = planRights([{ name: object.name, spec }], { loader })
      plans.set(loader, plan)
      const policy = reread(plan)
      assert.deepEqual(policy.rights.masks, plan.masks, `${object.name} ${loader}`)
      assert.deepEqual(
        policy.rights.capabilities,
        plan.capabilities.map(({ name }) => name),
        `${object.name} ${loader}`,
      )
    }
    // A loader's probes only add.
    for (const domain of MASK_DOMAINS)
      assert.equal(
        plans.get('bpftoken')!.masks[domain] & ~plans.get('libbpf')!.masks[domain],
        0n,
        `${object.name} ${domain}`,
      )
  }
})

test('a capability that only attaching asks for is planned, and told apart from those of loading', () => {
  const netAdmin = (section: string) => {
    const spec = parseObject(xdpObject(section), { name: 'one' })
    const { capabilities } = planRights([{ name: 'one', spec }], { loader: 'bpftoken' })
    return capabilities.find(({ name }) => name === 'net_admin')
  }
  const facts = { name: 'net_admin', forLoader: false } as const
  for (const section of ['cgroup_skb/egress', 'cgroup_skb/ingress', 'cgroup/skb'])
    assert.deepEqual(netAdmin(section), { ...facts, by: ['to attach program "let_pass"'], toAttach: true })
  for (const section of ['xdp', 'sockops', 'cgroup/dev'])
    assert.deepEqual(netAdmin(section), { ...facts, by: ['program "let_pass"'], toAttach: false })
  assert.equal(netAdmin('socket'), undefined)
})

/**
 * The fixture with the type of its ring buffer, the length of an array in BTF, made another one.
 */
function withMapType(type: number): Buffer {
  const bytes = readFileSync(join(__dirname, '../../fixtures/network.bpf.o'))
  const array = Buffer.from('00000000' + '00000003' + '00000000', 'hex')
  const places = []
  for (let at = bytes.indexOf(array); at !== -1; at = bytes.indexOf(array, at + 1))
    if (bytes.readUInt32LE(at + 20) === 27) places.push(at + 20)
  assert.equal(places.length, 1)
  bytes.writeUInt32LE(type, places[0])
  return bytes
}

test('a map type of a newer kernel goes by its number, and one that no token can lend is no map', () => {
  const plan = (type: number) =>
    planRights([{ name: 'one', spec: parseObject(withMapType(type), { name: 'one' }) }], {
      loader: 'bpftoken',
    })
  for (const [type, word] of [
    [27, 'ringbuf'],
    [60, '60'],
    [63, '63'],
  ] as const) {
    const { masks, rights } = plan(type)
    assert.equal((masks.maps >> BigInt(type)) & 1n, 1n)
    assert.ok(rights.some(right => right.domain === 'maps' && right.word === word && right.bit === type))
  }
  for (const type of [64, 999, 0xffff_ffff]) {
    const { rights, problems } = plan(type)
    assert.ok(!rights.some(right => right.domain === 'maps' && right.bit === type))
    assert.match(problems[0]!, new RegExp(`there is no map type ${type}, and no token could lend it`))
  }
})
