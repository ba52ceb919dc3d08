/**
 * What the guard costs, in one boot: the same calls before it is installed and with it.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 -- node test/vm/guard-cost.ts
 *
 * Under software emulation only the ratios mean something. Rounds with and without alternate, so
 * that drift hits both; the least of the rounds is what other work on the machine disturbed least.
 */
import { delegate, undelegate } from '../../src/delegation/delegate.ts'
import { programIds } from '../../src/ebpf/object-id.ts'
import { Program } from '../../src/ebpf/prog.ts'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { Fd } from '../../src/sys/fd.ts'
import { native } from '../../src/sys/native.ts'
import { bpf_attr_map_elem } from '../../src/uapi/bpf.ts'
import { mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { EVERYTHING, Lab, openIn, policyWith, tokenWithin, vocabulary } from '../kernel/delegation/lab.ts'

const ROUNDS = 16
const CALLS = 150
const BPF_MAP_LOOKUP_ELEM = 1

type Call = () => number

const middle = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1]!

/** Microseconds of the middle one of a batch of calls. The call gives a descriptor or 0. */
function timed(call: Call): number {
  const fds: number[] = []
  const took: number[] = []
  for (let i = 0; i < CALLS; i++) {
    const began = process.hrtime.bigint()
    fds.push(call())
    took.push(Number(process.hrtime.bigint() - began) / 1000)
  }
  for (const fd of fds) {
    if (fd < 0) throw new Error(`a call gave ${fd}`)
    if (fd > 0) new Fd(fd).close()
  }
  return middle(took)
}

/** How big the programs are, and what the verifier had to look at. */
function describePrograms(): string {
  let [count, insns, verified] = [0, 0, 0]
  for (const id of programIds()) {
    using program = Program.fromId(id)
    const info = program.info()
    if (!info.name.startsWith('guard_')) continue
    count++
    insns += info.xlatedBytes / 8
    verified += info.verifiedInsns
  }
  return `${count} programs of ${insns} instructions; the verifier looked at ${verified}`
}

/** One round of every call, under a new delegation. */
async function round(lab: Lab, guard: Guard | undefined): Promise<Record<string, number>> {
  const policy = policyWith(EVERYTHING)
  const lent = {
    ...policy,
    rights: { ...policy.rights, capabilities: ['bpf', 'net_admin', 'perfmon'] as const },
  }
  {
    using lender = guard?.lend(lent)
    await delegate(lent, lab.target, vocabulary, { guard: lender })
  }
  using root = await openIn(lab.target, '/sys/fs/bpf')
  using token = new Fd(tokenWithin(lab.target, root.number))
  const map = mapAttr('hash', token.number)
  const own = mapAttr('hash')
  const { cmd, attr, refs } = progCommand('xdp', 'xdp', token.number)
  const plain = progCommand('xdp', 'xdp')
  const addon = native()
  using kept = new Fd(addon.bpf(0, mapAttr('array')))
  const lookup = bpf_attr_map_elem.encode({ map_fd: kept.number })
  const { key, value } = bpf_attr_map_elem.fields
  const lookupRefs = [lookup, key.off, new Uint8Array(4), lookup, value.off, new Uint8Array(4)]
  const result = {
    // The host's root has every capability in the workload's namespace, so that its token serves us
    // too.
    'map create under a token': timed(() => addon.bpf(0, map)),
    'program load under a token': timed(() => addon.bpf(cmd, attr, ...refs)),
    'map create without a token': timed(() => addon.bpf(0, own)),
    'program load without a token': timed(() => addon.bpf(plain.cmd, plain.attr, ...plain.refs)),
    'lookup in a map': timed(() => addon.bpf(BPF_MAP_LOOKUP_ELEM, lookup, ...lookupRefs)),
    'open and close of a file': timed(() => {
      const fd = addon.openat2(-100, '/proc/self/status', new Uint8Array(24))
      return addon.close(fd)
    }),
  }
  await undelegate(lab.target, vocabulary)
  return result
}

async function main(): Promise<void> {
  using lab = await Lab.open()
  await round(lab, undefined) // Warm.
  const without: Record<string, number>[] = []
  const with_: Record<string, number>[] = []
  const installMs: number[] = []
  for (let i = 0; i < ROUNDS; i++) {
    without.push(await round(lab, undefined))
    const began = performance.now()
    await installGuard()
    installMs.push(performance.now() - began)
    {
      using guard = Guard.open()
      if (i === 0) console.log(describePrograms())
      with_.push(await round(lab, guard))
    }
    await removeGuard()
  }
  console.log(`installed in ${middle(installMs).toFixed(0)} ms: read, relocated, verified, attached, pinned`)
  console.log('call: without, with (least; quartiles in brackets), ratio of the least, ratio of the middle')
  for (const name of Object.keys(without[0]!)) {
    const [a, b] = [without, with_].map(rounds => rounds.map(one => one[name]!).sort((x, y) => x - y))
    const at = (sorted: number[], part: number): number => sorted[Math.floor((sorted.length - 1) * part)]!
    const us = (sorted: number[]): string =>
      `${sorted[0]!.toFixed(1)} us (${[0.25, 0.5, 0.75].map(part => at(sorted, part).toFixed(1)).join(' ')})`
    const ratio = (part: number): string => (at(b!, part) / at(a!, part)).toFixed(3)
    console.log(`${name}: ${us(a!)}, ${us(b!)}, ${ratio(0)}, ${ratio(0.5)}`)
  }
}

void main()
