/**
 * The four masks, as the kernel takes them: through raw fsconfig(2) and through a policy. What the
 * kernel made is read three ways, which must agree: the token's own info, mountinfo, and our
 * parseMountValue().
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { Token } from '../../../src/ebpf/token.ts'
import type { SyscallError } from '../../../src/errors.ts'
import { mountOption, parseMountValue } from '../../../src/policy/mask-text.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import type { Policy } from '../../../src/policy/policy.ts'
import { ANY_MASK, MASK_DOMAINS, type MaskDomain, type Masks } from '../../../src/policy/vocabulary.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { fsconfigCreate, fsconfigString, fsmount } from '../../../src/sys/mount.ts'
import { parseMountInfo } from '../../../src/sys/mountinfo.ts'
import { open } from '../../../src/sys/open.ts'
import { readProc } from '../../../src/sys/process.ts'
import { O_CLOEXEC, O_DIRECTORY, O_RDONLY } from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { inVm, kernelSince } from '../../helpers/machine.ts'
import { lab, withLab } from './fixture.ts'
import { callWithin, openIn, policyWith, tokenWithin, vocabulary } from './lab.ts'
import { fsopenWithin } from './within.ts'

withLab()

interface Made {
  /** Errno of each setting, `ok` where it was taken. */
  readonly set: string[]
  /** All 64 bits, from the token; 0 where there was nothing to make a token of. */
  readonly mask: bigint
  /** The value of the option in mountinfo; undefined where it is not shown. */
  readonly shown: string | undefined
}

/**
 * Sets one option of a new bpffs to each of `values` in turn, mounts it, makes a token, and looks.
 */
function make(domain: MaskDomain, values: readonly string[]): Made {
  using fs = fsopenWithin(lab.target.process.pidfd, 'bpf')
  const set = values.map(value => {
    try {
      fsconfigString(fs, `delegate_${domain}`, value)
      return 'ok'
    } catch (error) {
      return (error as SyscallError).errnoName
    }
  })
  fsconfigCreate(fs)
  using mount = fsmount(fs, 0)
  callWithin(lab.target, 'move_mount', mount.number, '', -100, '/sys/fs/bpf', 4)
  using root = open('.', O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, mount)
  const result = tokenWithin(lab.target, root.number)
  if (result < 0) assert.equal(errnoName(result), 'ENOENT')
  // The last of those on one path is the one on top: below may be the host's.
  const line = parseMountInfo(readProc(lab.target.process, 'mountinfo'), 'bpf')
    .filter(m => m.path === '/sys/fs/bpf')
    .at(-1)!
  callWithin(lab.target, 'umount2', '/sys/fs/bpf', 2)
  const key = `delegate_${domain}=`
  return {
    set,
    mask: result < 0 ? 0n : maskOfToken(new Fd(result), domain),
    shown: line.superOptions.find(option => option.startsWith(key))?.slice(key.length),
  }
}

function maskOfToken(fd: Fd, domain: MaskDomain): bigint {
  using token = new Token(fd)
  const masks = token.info()
  for (const other of MASK_DOMAINS)
    if (other !== domain) assert.equal(masks[other], 0n, `${other} set by ${domain}`)
  return masks[domain]
}

/**
 * How the kernel prints `mask`: `any` for all that have names, else names in bit order; bits past
 * the enum never.
 */
function printed(domain: MaskDomain, mask: bigint): string | undefined {
  const { known } = vocabulary[domain]
  if ((mask & known) === 0n) return undefined
  return (mask & known) === known ? 'any' : mountOption(vocabulary, domain, mask & known)
}

/**
 * What a token says of `mask`. Before 6.17 only its fdinfo says anything, and there `any` is all
 * bits with names.
 */
function ofToken(domain: MaskDomain, mask: bigint): bigint {
  return mask === vocabulary[domain].known && !kernelSince(6, 17) ? ANY_MASK : mask
}

/** `x` and `y` are two words of the domain, at bits `i` and `j`. */
type Case = readonly [what: string, values: readonly string[], set: string, mask: bigint]

function casesOf(domain: MaskDomain): Case[] {
  const { nameOfBit, known } = vocabulary[domain]
  const [[i, x], [j, y]] = [...nameOfBit].slice(-2) as [[number, string], [number, string]]
  const X = 1n << BigInt(i)
  const Y = 1n << BigInt(j)
  const beyond = 1n << 63n
  assert.equal(known & beyond, 0n)
  const prefix = { cmds: 'BPF_', maps: 'BPF_MAP_TYPE_', progs: 'BPF_PROG_TYPE_', attachs: 'BPF_' }[domain]
  return [
    ['a word', [x], 'ok', X],
    ['a word in upper case', [x.toUpperCase()], 'ok', X],
    ['two words', [`${x}:${y}`], 'ok', X | Y],
    ['two settings add up', [x, y], 'ok ok', X | Y],
    ['zero takes nothing away', [x, '0'], 'ok ok', X],
    ['hexadecimal', [`0x${X.toString(16)}`], 'ok', X],
    ['decimal', [String(Y)], 'ok', Y],
    ['octal', [`0${Y.toString(8)}`], 'ok', Y],
    ['a plus sign', [`+${X}`], 'ok', X],
    ['any', ['any'], 'ok', ANY_MASK],
    ['any and a word', [`any:${x}`], 'ok', ANY_MASK],
    ['a number takes the place of the word before it', [`${x}:0x${Y.toString(16)}`], 'ok', Y],
    ['a number takes the place of any', [`any:0x${Y.toString(16)}`], 'ok', Y],
    ['a number before a word adds to it', [`0x${Y.toString(16)}:${x}`], 'ok', X | Y],
    ['a number takes the place of a number', [`${X}:${Y}`], 'ok', Y],
    ['a number takes no bit of an earlier setting', [x, `${y}:0x0`], 'ok ok', X],
    ['a bit that has no name', [`0x${beyond.toString(16)}`], 'ok', beyond],
    ['a bit without a name and a word', [`0x${beyond.toString(16)}:${x}`], 'ok', beyond | X],
    ['all bits that have names', [`0x${known.toString(16)}`], 'ok', known],
    ['nothing of ANY', ['ANY'], 'EINVAL', 0n],
    ['nothing of an unknown word', ['no_such_word'], 'EINVAL', 0n],
    ['nothing of a word with its prefix', [`${prefix}${x.toUpperCase()}`], 'EINVAL', 0n],
    ['nothing of the words before an unknown one', [`${x}:no_such_word`], 'EINVAL', 0n],
    ['earlier settings stay when one is refused', [x, `${y}:no_such_word`], 'ok EINVAL', X],
    ['a refused setting can be followed by a good one', ['no_such_word', x], 'EINVAL ok', X],
    ['nothing of an empty value', [''], 'EINVAL', 0n],
    ['nothing of an empty item', [`${x}:`], 'EINVAL', 0n],
    ['nothing of a negative number', ['-1'], 'EINVAL', 0n],
    ['nothing of a comma', [`${x},${y}`], 'EINVAL', 0n],
    ['nothing of a space', [`${x} `], 'EINVAL', 0n],
    ['nothing of more than 64 bits', ['0x10000000000000000'], 'ERANGE', 0n],
  ]
}

describe('delegate_* of fsconfig(2)', () => {
  for (const domain of MASK_DOMAINS)
    test(`delegate_${domain} takes and refuses what the grammar says`, t => {
      const cases = casesOf(domain)
      for (const [what, values, set, mask] of cases) {
        const made = make(domain, values)
        const where = `${what}: ${values.join(' then ')}`
        assert.deepEqual(
          { set: made.set.join(' '), mask: made.mask },
          { set, mask: ofToken(domain, mask) },
          where,
        )
        assert.equal(made.shown, printed(domain, mask), where)
        // The last setting alone, by our own reading of the grammar.
        const parsed = parseMountValue(vocabulary, domain, values.at(-1)!)
        assert.equal(parsed.ok ? 'ok' : parsed.errno, made.set.at(-1), where)
        if (parsed.ok && values.length === 1) assert.equal(parsed.mask, mask, where)
      }
      t.diagnostic(`${cases.length} cases`)
    })

  test('fsconfig() takes no value of more than 255 characters, which a number never needs', () => {
    const all = [...vocabulary.attachs.nameOfBit.values()].join(':')
    assert.ok(all.length > 255)
    const made = make('attachs', [all, `0x${vocabulary.attachs.known.toString(16)}`])
    const mask = ofToken('attachs', vocabulary.attachs.known)
    assert.deepEqual(made, { set: ['EINVAL', 'ok'], mask, shown: 'any' })
  })

  test('parseMountValue() reads every random value as the kernel does', t => {
    const random = randomNumbers(0x5eed)
    const pick = <T>(list: readonly T[]): T => list[Number(random(BigInt(list.length)))]!
    let taken = 0
    const rounds = inVm ? 150 : 400
    for (let round = 0; round < rounds; round++) {
      const domain = pick(MASK_DOMAINS)
      const words = [...vocabulary[domain].bitOfName.keys()]
      const item = (): string =>
        pick([
          () => pick(words),
          () => pick(words),
          () => pick(words).toUpperCase(),
          () => `0x${random(ANY_MASK).toString(16)}`,
          () => random(1n << 20n).toString(),
          () => `0${random(1n << 12n).toString(8)}`,
          () => 'any',
          () =>
            pick([
              '',
              ' ',
              'Any',
              '0x',
              '08',
              '+',
              '++1',
              '0b1',
              '1e3',
              '0X1f',
              '00',
              '0x0',
              `x${pick(words)}`,
            ]),
        ])()
      const text = Array.from({ length: 1 + Number(random(4n)) }, item).join(':')
      const parsed = parseMountValue(vocabulary, domain, text)
      const made = make(domain, [text])
      const ours = parsed.ok ? { set: ['ok'], mask: parsed.mask } : { set: [parsed.errno], mask: 0n }
      assert.deepEqual({ set: made.set, mask: made.mask }, ours, `${domain} ${JSON.stringify(text)}`)
      if (parsed.ok) taken++
    }
    t.diagnostic(`${rounds} values, ${taken} of them taken`)
    assert.ok(taken > rounds / 4 && taken < rounds)
  })
})

/**
 * A small generator, so that a failure comes back. Numbers from 0 up to, not including, `below`.
 */
function randomNumbers(seed: number): (below: bigint) => bigint {
  let state = BigInt(seed)
  const next = (): bigint => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & ANY_MASK
    return state >> 32n
  }
  return below => ((next() << 32n) | next()) % below
}

const policyOf = (rights: string): Policy =>
  parsePolicy(
    `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: masks }
spec: { rights: ${rights} }
`,
    { source: 'masks', vocabulary },
  )

/** What the token of a delegation under `policy` says, and what delegate() said of it. */
async function lend(policy: Policy): Promise<{ token: Masks; made: Masks }> {
  const { masks: made } = await delegate(policy, lab.target, vocabulary)
  try {
    using root = await openIn(lab.target, '/sys/fs/bpf')
    using token = new Token(new Fd(tokenWithin(lab.target, root.number)))
    return { token: { ...token.info() }, made }
  } finally {
    await undelegate(lab.target, vocabulary)
  }
}

/**
 * A mask as mountinfo can tell it: all bits for all that have names, and never one without a name.
 */
function told(masks: Masks): Masks {
  const of = (domain: MaskDomain): bigint => {
    const { known } = vocabulary[domain]
    return (masks[domain] & known) === known ? ANY_MASK : masks[domain] & known
  }
  return { cmds: of('cmds'), maps: of('maps'), progs: of('progs'), attachs: of('attachs') }
}

describe('delegate()', () => {
  const NONE = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  const bit = (domain: MaskDomain, word: string) => 1n << BigInt(vocabulary[domain].bitOfName.get(word)!)

  for (const [rights, masks] of [
    ['{ cmds: [map_create] }', { cmds: bit('cmds', 'map_create') }],
    [
      '{ cmds: [map_create], maps: [array, ringbuf] }',
      { cmds: 1n, maps: bit('maps', 'array') | bit('maps', 'ringbuf') },
    ],
    ['{ progs: [xdp], attachs: [xdp] }', { progs: bit('progs', 'xdp'), attachs: bit('attachs', 'xdp') }],
    [
      '{ cmds: [any], maps: [any], progs: [any], attachs: [any] }',
      { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK },
    ],
    ['{ maps: [0x6] }', { maps: 6n }],
    // Unlike in a mount option, a number in a policy adds to what stands before it.
    ['{ maps: [array, 0x2] }', { maps: 6n }],
    ['{ cmds: [map_create], maps: [0x8000000000000000] }', { cmds: 1n, maps: 1n << 63n }],
  ] as const)
    test(`delegate() lends what the policy says, given rights ${rights}`, async () => {
      const wanted = { ...NONE, ...masks }
      const { token, made } = await lend(policyOf(rights))
      assert.deepEqual(token, wanted)
      assert.deepEqual(made, told(wanted))
    })

  test('delegate() lends exactly the bits of random masks', async t => {
    const random = randomNumbers(0xb17)
    const rounds = inVm ? 50 : 200
    for (let round = 0; round < rounds; round++) {
      // Sparse, dense and full ones, and now and then none at all in one domain.
      const mask = (): bigint =>
        [
          () => random(ANY_MASK),
          () => random(ANY_MASK) & random(ANY_MASK) & random(ANY_MASK),
          () => ANY_MASK,
          () => 0n,
        ][Number(random(4n))]!()
      const masks = { cmds: mask() | 1n, maps: mask(), progs: mask(), attachs: mask() }
      const { token, made } = await lend(policyWith(masks))
      assert.deepEqual(token, masks)
      assert.deepEqual(made, told(masks))
    }
    t.diagnostic(`${rounds} random sets of four masks`)
  })
})
