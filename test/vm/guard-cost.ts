/**
 * What the guard costs, in one boot: the same calls before it is installed and with it.
 *
 *   node --import tsx scripts/vm.ts --kernel 6.12 -- node test/vm/guard-cost.ts
 *
 * Under software emulation only the ratios mean something. Rounds with and without alternate, so that drift hits both; the
 * least of each is what other work on the machine disturbed least.
 */
import { delegate, undelegate } from '../../src/delegation/delegate.ts'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { Fd } from '../../src/sys/fd.ts'
import { native } from '../../src/sys/native.ts'
import { mapAttr, progCommand } from '../kernel/delegation/attributes.ts'
import { EVERYTHING, Lab, openIn, policyWith, tokenWithin, vocabulary } from '../kernel/delegation/lab.ts'

const ROUNDS = 12
const CALLS = 150

type Call = () => number

/** Microseconds for each call, over one batch. The call gives a descriptor or 0. */
function timed(call: Call): number {
  const fds: number[] = []
  const began = process.hrtime.bigint()
  for (let i = 0; i < CALLS; i++) fds.push(call())
  const took = Number(process.hrtime.bigint() - began) / 1000 / CALLS
  for (const fd of fds) {
    if (fd < 0) throw new Error(`a call gave ${fd}`)
    if (fd > 0) new Fd(fd).close()
  }
  return took
}

/** One round of every call, with a delegation of its own. */
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
  const result = {
    // The host's root has every capability in the workload's namespace, so that its token serves us too.
    'map create under a token': timed(() => addon.bpf(0, map)),
    'program load under a token': timed(() => addon.bpf(cmd, attr, ...refs)),
    'map create without a token': timed(() => addon.bpf(0, own)),
    'program load without a token': timed(() => addon.bpf(plain.cmd, plain.attr, ...plain.refs)),
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
  for (let i = 0; i < ROUNDS; i++) {
    without.push(await round(lab, undefined))
    await installGuard()
    {
      using guard = Guard.open()
      with_.push(await round(lab, guard))
    }
    await removeGuard()
  }
  const spread = (rounds: Record<string, number>[], name: string): [number, number] => {
    const sorted = rounds.map(one => one[name]!).sort((a, b) => a - b)
    return [sorted[0]!, sorted[sorted.length >> 1]!]
  }
  for (const name of Object.keys(without[0]!)) {
    const [a, aMiddle] = spread(without, name)
    const [b, bMiddle] = spread(with_, name)
    const us = (least: number, middle: number): string =>
      `${least.toFixed(1)} us (median ${middle.toFixed(1)})`
    console.log(
      `${name}: ${us(a, aMiddle)} without, ${us(b, bMiddle)} with: ${(b / a).toFixed(3)} (${(bMiddle / aMiddle).toFixed(3)})`,
    )
  }
}

void main()
