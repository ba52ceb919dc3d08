/**
 * Every map type, program type and BTF load under a token: the right bits suffice, and without any
 * one of them the answer is EPERM. Types that this kernel refuses even to the host's root are
 * counted.
 */
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { PROGRAM_CLASSES } from '../../../src/policy/kernel-classes.ts'
import { ANY_MASK, MASK_DOMAINS, type MaskDomain, type Masks } from '../../../src/policy/vocabulary.ts'
import type { Fd } from '../../../src/sys/fd.ts'
import { bpf_attr_get_id } from '../../../src/uapi/bpf.ts'
import { kernelSince } from '../../helpers/machine.ts'
import { asHostRoot, BPF_BTF_GET_FD_BY_ID, btfCommand, type Command, progCommand } from './attributes.ts'
import { lab, parts, targets, withLabAndParts } from './fixture.ts'
import { EVERYTHING, vocabulary } from './lab.ts'

/** By their masks. Many commands are tried under the same. */
const tokens = new Map<string, Fd>()
after(() => {
  for (const token of tokens.values()) token.close()
})

withLabAndParts()

type Words = Partial<Record<MaskDomain, string>>

function bit(domain: MaskDomain, word: string): bigint {
  return 1n << BigInt(vocabulary[domain].bitOfName.get(word)!)
}

function masksOf(words: Words): Partial<Masks> {
  return Object.fromEntries(Object.entries(words).map(([d, word]) => [d, bit(d as MaskDomain, word)]))
}

/** The number of a token with `masks`. */
function tokenOf(masks: Partial<Masks>): number {
  const key = MASK_DOMAINS.map(domain => masks[domain] ?? 0n).join()
  const token = tokens.get(key) ?? lab.token(masks)
  tokens.set(key, token)
  return token.number
}

function under(masks: Partial<Masks>, command: (token: number) => Command): string {
  return lab.run(command(tokenOf(masks)))
}

/**
 * Runs `command` under exactly `words`, then under these without one, then under all bits there are
 * without that one. Gives what was not as it should be, and how many rights were taken away.
 */
function hold(words: Words, command: (token: number) => Command): { wrong: string[]; removed: number } {
  const wrong: string[] = []
  const expect = (what: string, got: string, wanted: string) => {
    if (got !== wanted) wrong.push(`${Object.values(words).join('+')} ${what}: ${got}, not ${wanted}`)
  }
  expect('exactly', under(masksOf(words), command), 'ok')
  const domains = MASK_DOMAINS.filter(domain => words[domain] !== undefined)
  for (const domain of domains) {
    const lost = bit(domain, words[domain]!)
    const rest = { ...masksOf(words), [domain]: 0n }
    // Nothing at all makes no token: then another map type or command stands in for "something
    // else".
    const some = Object.values(rest).some(mask => mask !== 0n) ? rest : { maps: 2n }
    expect(`without ${domain}`, under(some, command), 'EPERM')
    const all = { ...EVERYTHING, [domain]: ANY_MASK & ~lost }
    expect(`all but ${words[domain]}`, under(all, command), 'EPERM')
  }
  return { wrong, removed: domains.length }
}

/** The types that host root cannot have here either: `type: errno`. */
const refusals = (rows: [string, string][]): string =>
  rows.map(([type, errno]) => `${type} ${errno}`).join(', ') || 'none'

test('BPF_MAP_CREATE under a token needs cmds map_create and the type, for every map type', async t => {
  const refused: [string, string][] = []
  const wrong: string[] = []
  let types = 0
  let removed = 0
  for (const type of vocabulary.maps.nameOfBit.values()) {
    const asRoot = asHostRoot(parts.command(type))
    if (asRoot !== 'ok') {
      refused.push([type, asRoot])
      continue
    }
    const held = hold({ cmds: 'map_create', maps: type }, token => parts.command(type, token))
    wrong.push(...held.wrong)
    removed += held.removed
    types++
  }
  t.diagnostic(
    `${types} map types, each with its 2 bits and without each: ${removed} removals, each in 2 ways`,
  )
  t.diagnostic(`refused to host root too: ${refusals(refused)}`)
  assert.deepEqual(wrong, [])
  // No kernel makes that one.
  assert.deepEqual(refused, [['unspec', 'EINVAL']])
})

/**
 * Attach types whose 0 the kernel rewrites before it asks the token
 * (bpf_prog_load_fixup_attach_type).
 */
const FIXED_UP: Readonly<Record<string, string>> = {
  cgroup_sock: 'cgroup_inet_sock_create',
  sk_reuseport: 'sk_reuseport_select',
}
const ZERO = 'cgroup_inet_ingress'

/** The bit that is asked for a program of `type` loaded with `attach`. */
function askedBit(type: string, attach: string): string {
  return attach === ZERO ? (FIXED_UP[type] ?? attach) : attach
}

/**
 * Types that a token cannot be tried with on a kernel whose own root is refused: no trampolines, no
 * driver.
 */
const MAY_BE_REFUSED = ['tracing', 'lsm', 'ext', 'lirc_mode2', 'struct_ops', 'unspec', 'netfilter']

describe('BPF_PROG_LOAD under a token', () => {
  test('BPF_PROG_LOAD needs cmds prog_load, the type and its attach type, for every pair of the class table', async t => {
    const refused: [string, string][] = []
    const wrong: string[] = []
    const types = new Set<string>()
    let pairs = 0
    let removed = 0
    for (const [type, { attachs }] of Object.entries(PROGRAM_CLASSES)) {
      const fixed = FIXED_UP[type] === undefined ? [] : [ZERO]
      for (const attach of [...attachs, ...fixed].filter(name => vocabulary.attachs.bitOfName.has(name))) {
        const asRoot = asHostRoot(progCommand(type, attach, undefined, targets))
        if (asRoot !== 'ok') {
          refused.push([`${type}/${attach}`, asRoot])
          continue
        }
        const words = { cmds: 'prog_load', progs: type, attachs: askedBit(type, attach) }
        const held = hold(words, token => progCommand(type, attach, token, targets))
        wrong.push(...held.wrong)
        removed += held.removed
        types.add(type)
        pairs++
      }
    }
    t.diagnostic(
      `${types.size} program types in ${pairs} pairs with an attach type: ${removed} removals, each in 2 ways`,
    )
    t.diagnostic(`refused to host root too: ${refusals(refused)}`)
    assert.deepEqual(wrong, [])
    for (const [pair] of refused)
      assert.ok(MAY_BE_REFUSED.includes(pair.split('/')[0]!), `${pair} is refused to root`)
    // Every type of this kernel is either held or accounted for.
    const known = [...vocabulary.progs.nameOfBit.values()].filter(type => type !== 'unspec')
    assert.deepEqual(
      known.filter(type => !types.has(type) && !refused.some(([pair]) => pair.startsWith(`${type}/`))),
      [],
    )
  })

  test('BPF_PROG_LOAD fails for every loadable pair when all bits but its attach type are lent', async t => {
    const loadable = new Map<string, string[]>()
    for (const type of vocabulary.progs.nameOfBit.values())
      for (const attach of vocabulary.attachs.nameOfBit.values())
        if (asHostRoot(progCommand(type, attach, undefined, targets)) === 'ok')
          loadable.set(type, [...(loadable.get(type) ?? []), attach])
    const pairs = [...loadable].flatMap(([type, attachs]) => attachs.map(attach => [type, attach] as const))
    const wrong: string[] = []
    const compare = (token: number, chosen: typeof pairs, wanted: string, what: string) => {
      for (const [type, attach] of chosen) {
        const got = lab.run(progCommand(type, attach, token, targets))
        if (got !== wanted) wrong.push(`${type}/${attach} ${what}: ${got}, not ${wanted}`)
      }
    }
    compare(tokenOf(EVERYTHING), pairs, 'ok', 'with all bits')
    for (const [at, attach] of vocabulary.attachs.nameOfBit) {
      const lost = pairs.filter(([type, name]) => askedBit(type, name) === attach)
      const token = tokenOf({ ...EVERYTHING, attachs: ANY_MASK & ~(1n << BigInt(at)) })
      compare(token, lost, 'EPERM', `without ${attach}`)
      // The twin: the token works for what it still has.
      const others = pairs.filter(([type, name]) => name !== attach && askedBit(type, name) !== attach)
      compare(token, others.slice(0, 3), 'ok', `without ${attach}`)
    }
    for (const [at, lostType] of vocabulary.progs.nameOfBit) {
      const lost = pairs.filter(([type]) => type === lostType)
      const token = tokenOf({ ...EVERYTHING, progs: ANY_MASK & ~(1n << BigInt(at)) })
      compare(token, lost, 'EPERM', 'without its type')
    }
    t.diagnostic(
      `${pairs.length} loadable pairs of ${loadable.size} program types and ${vocabulary.attachs.nameOfBit.size} attach types`,
    )
    assert.deepEqual(wrong, [])
  })
})

test('BPF_BTF_LOAD under a token needs cmds btf_load and nothing else', async () => {
  assert.equal(asHostRoot(btfCommand()), 'ok')
  assert.deepEqual(
    hold({ cmds: 'btf_load' }, token => btfCommand(token)),
    { wrong: [], removed: 1 },
  )
})

test('BPF_BTF_GET_FD_BY_ID under a token needs cmds btf_get_fd_by_id', async () => {
  const TOKEN = 1 << 16
  const command = (token: number): Command => ({
    cmd: BPF_BTF_GET_FD_BY_ID,
    attr: bpf_attr_get_id.encode({ btf_id: 1, open_flags: TOKEN, fd_by_id_token_fd: token }),
    refs: [],
  })
  if (kernelSince(6, 15))
    assert.deepEqual(hold({ cmds: 'btf_get_fd_by_id' }, command), { wrong: [], removed: 1 })
  // Before 6.15 the command knows neither the flag nor the field.
  else await lab.lending(EVERYTHING, ({ token }) => assert.equal(lab.run(command(token.number)), 'EINVAL'))
})

test('BPF_MAP_CREATE and BPF_PROG_LOAD by the same process fail with EPERM when no token is given', async () => {
  await lab.lending(EVERYTHING, ({ token }) => {
    for (const command of [
      (t?: number) => parts.command('array', t),
      (t?: number) => progCommand('socket_filter', ZERO, t),
    ]) {
      assert.equal(lab.run(command(token.number)), 'ok')
      assert.equal(lab.run(command()), 'EPERM')
    }
  })
})

test('BPF_MAP_CREATE, BPF_PROG_LOAD and BPF_BTF_LOAD need none of the other command bits', async t => {
  const needed = bit('cmds', 'map_create') | bit('cmds', 'prog_load') | bit('cmds', 'btf_load')
  const commands = (token: number) => [
    parts.command('hash', token),
    progCommand('xdp', 'xdp', token),
    btfCommand(token),
  ]
  const rest = { maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
  await lab.lending({ ...rest, cmds: needed }, ({ token }) =>
    assert.deepEqual(
      commands(token.number).map(command => lab.run(command)),
      ['ok', 'ok', 'ok'],
    ),
  )
  await lab.lending({ ...rest, cmds: ANY_MASK & ~needed }, ({ token }) =>
    assert.deepEqual(
      commands(token.number).map(command => lab.run(command)),
      ['EPERM', 'EPERM', 'EPERM'],
    ),
  )
  t.diagnostic(`${vocabulary.cmds.nameOfBit.size - 3} command bits without effect on the three`)
})
