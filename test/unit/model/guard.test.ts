/**
 * The guard on paper, by the rows of docs/guard.md: each refusal with a twin that is let through. That
 * the real guard says the same, test/vm/guard-model.test.ts shows by random stories.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type Actor,
  type Delegation,
  type Delegator,
  Guard,
  type GuardCall,
  type GuardLink,
  type GuardProgram,
  type GuardSettings,
  type GuardToken,
  type GuardVerdict,
  ROOT_CGROUP,
} from '../../../src/model/guard/guard.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn } from '../../../src/model/task.ts'
import { DEFAULT_TERMS, type Terms } from '../../../src/policy/policy.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_type } from '../../../src/uapi/bpf.ts'

const masks = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
const ns = nestedIn(INITIAL, 'box', 0)
const elsewhere = nestedIn(INITIAL, 'other', 0)
const OWN = { name: 'app', parent: ROOT_CGROUP }
const OTHER = { name: 'other', parent: ROOT_CGROUP }

const actor = (process: string, userNamespace = INITIAL, more: Partial<Actor> = {}): Actor => ({
  process,
  task: { userNamespace, uid: 0, capabilities: new Set(MODEL_CAPABILITIES) },
  cgroup: OWN,
  inHostNetwork: false,
  ...more,
})
const daemon = actor('daemon')
const app = actor('app', ns)
const stranger = actor('stranger', elsewhere)

type Changes = Partial<Omit<Terms, 'rights'>> & { capabilities?: Terms['rights']['capabilities'] }

const terms = ({ capabilities = ['bpf', 'net_admin', 'perfmon', 'sys_admin'], ...rest }: Changes): Terms => ({
  ...DEFAULT_TERMS,
  rights: { masks, capabilities },
  ...rest,
})

/** A guard, and what a daemon has lent to the app by one policy. */
class World {
  readonly guard: Guard
  readonly mount = {}
  readonly delegation: Delegation
  readonly token: GuardToken

  constructor(changes: Changes = {}, settings: GuardSettings & { delegator?: Delegator } = {}) {
    const { delegator = {}, ...rest } = settings
    this.guard = new Guard(rest)
    this.guard.installPolicy('p', terms(changes))
    this.guard.allow('daemon', delegator)
    this.delegation = this.lend('p').delegation!
    const { token } = this.guard.tokenCreate(this.delegation, app, ns, this.mount, 'here')
    this.token = token!
    this.guard.takeNotes()
  }

  lend(policy: string, by = daemon) {
    const context = {}
    this.guard.option(context, by, 'delegate')
    this.guard.option(context, by, 'abilities', policy)
    return this.guard.superblock(context, by, ns, masks)
  }

  map(bytes = 8n, who = app) {
    return this.guard.mapCreate(who, this.token, { type: 1, bytes })
  }

  load(more: { instructions?: number; target?: string; digest?: string; type?: number } = {}) {
    return this.guard.progLoad(app, this.token, {
      type: more.type ?? bpf_prog_type.BPF_PROG_TYPE_XDP,
      expectedAttach: 0,
      instructions: more.instructions ?? 2,
      ...(more.target === undefined ? {} : { target: more.target }),
      digests: more.digest === undefined ? [] : [more.digest],
    })
  }

  link(program: GuardProgram, who: Actor, more: Partial<GuardCall> = {}): GuardVerdict {
    return this.guard.command(who, {
      cmd: bpf_cmd.BPF_LINK_CREATE,
      object: { kind: 'program', program },
      type: bpf_attach_type.BPF_XDP,
      target: { kind: 'other' },
      ...more,
    })
  }
}

const why = (verdict: GuardVerdict): string =>
  verdict.refused ? `${verdict.point} ${verdict.reason} ${verdict.errno}` : 'ok'

describe('limits', () => {
  test('bytes of maps', () => {
    const world = new World({ limits: { mapBytes: 16n } })
    assert.deepEqual(
      [why(world.map(8n).verdict), why(world.map(9n).verdict), why(world.map(8n).verdict)],
      ['ok', 'map_create map-bytes EDQUOT', 'ok'],
    )
  })

  test('instructions of a program', () => {
    const world = new World({ limits: { instructions: 3 } })
    assert.deepEqual(
      [why(world.load({ instructions: 3 }).verdict), why(world.load({ instructions: 4 }).verdict)],
      ['ok', 'prog_load instructions EDQUOT'],
    )
  })

  test('a program that is gone makes room for another', () => {
    const world = new World({ limits: { programs: 1 } })
    const { program, verdict } = world.load()
    assert.deepEqual([why(verdict), why(world.load().verdict)], ['ok', 'prog_load programs EDQUOT'])
    world.guard.programFreed(program)
    assert.equal(why(world.load().verdict), 'ok')
  })
})

describe('programs', () => {
  test('by their digest, once they are verified', () => {
    const world = new World({ programs: { digests: ['tag:1'] } })
    const open = (digest: string) => why(world.guard.openProgram(app, world.load({ digest }).program))
    assert.deepEqual([open('tag:1'), open('tag:2')], ['ok', 'prog_load digest EACCES'])
  })

  test('by their target', () => {
    const world = new World({ targets: { functions: ['one'] } })
    const load = (target: string) =>
      why(world.load({ target, type: bpf_prog_type.BPF_PROG_TYPE_TRACING }).verdict)
    assert.deepEqual([load('one'), load('two')], ['ok', 'prog_load function EACCES'])
  })

  test('another user namespace opens none, unless tokens may be passed; the host’s root may', () => {
    const of = (passToken: boolean) => {
      const world = new World({ sharing: { bindMount: false, passToken } })
      const { program } = world.load()
      return [app, stranger, daemon].map(who => why(world.guard.openProgram(who, program)))
    }
    assert.deepEqual(of(false), ['ok', 'open stranger EACCES', 'ok'])
    assert.deepEqual(of(true), ['ok', 'ok', 'ok'])
  })
})

test('a map that carries devices becomes no stranger’s descriptor where the host’s network is out of reach', () => {
  const of = (type: number, changes: Changes = {}) => {
    const world = new World(changes)
    const { map } = world.guard.mapCreate(app, world.token, { type, bytes: 8n })
    return [app, stranger, daemon].flatMap(who => [
      why(world.guard.receive(who, { kind: 'map', map })),
      why(world.guard.openMap(who, map)),
    ])
  }
  const { BPF_MAP_TYPE_ARRAY: array, BPF_MAP_TYPE_DEVMAP: devices } = bpf_map_type
  const all = ['ok', 'ok', 'ok', 'ok', 'ok', 'ok']
  assert.deepEqual(of(devices), [
    'ok',
    'ok',
    'receive stranger EACCES',
    'receive stranger EACCES',
    'ok',
    'ok',
  ])
  assert.deepEqual(of(array), all)
  assert.deepEqual(of(devices, { network: 'host' }), all)
  assert.deepEqual(of(devices, { sharing: { bindMount: false, passToken: true } }), all)
})

describe('attaching', () => {
  test('reaches the host’s network only with `network: host`', () => {
    const there = { ...app, inHostNetwork: true }
    const world = new World()
    const { program } = world.load()
    assert.deepEqual(
      [why(world.link(program, there)), why(world.link(program, app))],
      ['attach network EACCES', 'ok'],
    )
    const host = new World({ network: 'host' })
    assert.equal(why(host.link(host.load().program, there)), 'ok')
  })

  test('to a cgroup that is not the workload’s own', () => {
    const type = bpf_attach_type.BPF_CGROUP_DEVICE
    const to = (world: World, cgroup: Actor['cgroup']) =>
      why(world.link(world.load().program, app, { type, target: { kind: 'cgroup', cgroup } }))
    const own = new World()
    const any = new World({ cgroups: 'any' })
    const below = { name: 'below', parent: OWN }
    assert.deepEqual(
      [to(own, OWN), to(own, below), to(own, OTHER), to(own, ROOT_CGROUP), to(any, OTHER)],
      ['ok', 'ok', 'attach cgroup EACCES', 'attach cgroup EACCES', 'ok'],
    )
  })

  test('what outlives the workload', () => {
    const call = {
      cmd: bpf_cmd.BPF_PROG_ATTACH,
      type: bpf_attach_type.BPF_CGROUP_DEVICE,
      target: { kind: 'cgroup', cgroup: OWN },
      flags: 2,
    } as const
    const of = (revocable: boolean) => {
      const world = new World({ revocable })
      return why(world.link(world.load().program, app, call))
    }
    assert.deepEqual([of(true), of(false)], ['attach outlives EACCES', 'ok'])
  })

  test('of what has ended, by nobody; of another user namespace, by its own', () => {
    const world = new World()
    const { program } = world.load()
    assert.deepEqual(
      [why(world.link(program, stranger)), why(world.link(program, app))],
      ['attach stranger EACCES', 'ok'],
    )
    world.guard.revoke(world.delegation, [])
    assert.deepEqual(
      [app, daemon].map(who => why(world.link(program, who))),
      ['attach revoked EACCES', 'attach revoked EACCES'],
    )
  })

  test('taking away is for whose it is', () => {
    const world = new World({ revocable: false })
    const { program } = world.load()
    const detach = (who: Actor) =>
      why(
        world.guard.command(who, {
          cmd: bpf_cmd.BPF_PROG_DETACH,
          type: bpf_attach_type.BPF_CGROUP_DEVICE,
          target: { kind: 'cgroup', cgroup: OWN },
          object: { kind: 'program', program },
        }),
      )
    assert.deepEqual([app, daemon, stranger].map(detach), ['ok', 'ok', 'detach not-own EACCES'])
  })

  test('into any map, where another task could exchange which it is, and that is in the host’s network', () => {
    const put = (type: number, who: Actor, world = new World()) => {
      const { map } = world.guard.mapCreate(app, world.token, { type, bytes: 8n })
      const object = { kind: 'map', map } as const
      return why(world.guard.command(who, { cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM, object }))
    }
    const { BPF_MAP_TYPE_ARRAY: array, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: sockets } = bpf_map_type
    const there = { ...app, inHostNetwork: true }
    const shared = { ...there, sharesDescriptors: true }
    const own = { ...app, sharesDescriptors: true }
    assert.deepEqual(
      [array, sockets].map(type => [there, shared, own].map(who => put(type, who))),
      [
        ['ok', 'attach network EACCES', 'ok'],
        ['attach network EACCES', 'attach network EACCES', 'ok'],
      ],
    )
    const free = (changes: Changes) => put(array, shared, new World(changes))
    assert.deepEqual([free({ network: 'host' }), free({ mode: 'permissive' })], ['ok', 'ok'])
  })

  test('an update puts the new program to work, whatever the link has', () => {
    const world = new World({ network: 'host' })
    const root = actor('root')
    const own: GuardProgram = { digests: [], admitted: true }
    const { program } = world.load()
    const update = (of: GuardProgram, next: GuardProgram) =>
      why(
        world.guard.command(root, {
          cmd: bpf_cmd.BPF_LINK_UPDATE,
          object: { kind: 'link', link: { program: of } },
          other: { kind: 'program', program: next },
        }),
      )
    assert.equal(update(own, program), 'ok')
    world.guard.revoke(world.delegation, [])
    assert.deepEqual([update(own, program), update(program, own)], ['attach revoked EACCES', 'ok'])
  })

  test('a link of struct_ops that is detached is nobody’s, so that only the host may touch it', () => {
    const world = new World()
    const { map } = world.map()
    const detach = (link: GuardLink, who: Actor) =>
      why(world.guard.command(who, { cmd: bpf_cmd.BPF_LINK_DETACH, object: { kind: 'link', link } }))
    assert.equal(detach({ map }, app), 'ok')
    assert.equal(detach({ isDetached: true }, app), 'detach not-own EACCES')
    assert.equal(detach({ isDetached: true }, actor('root')), 'ok')
  })

  test('a type that is newer than the guard may reach the network; all ones are no type', () => {
    const world = new World({ revocable: false })
    const { program } = world.load()
    const by = { ...app, inHostNetwork: true }
    assert.equal(why(world.link(program, by, { type: 63 })), 'attach network EACCES')
    assert.equal(why(world.link(program, by, { type: 0xffff_ffff })), 'ok')
  })

  test('by a map: a batch that is too long is not looked through', () => {
    const world = new World()
    const { map } = world.guard.mapCreate(app, world.token, {
      type: bpf_map_type.BPF_MAP_TYPE_PROG_ARRAY,
      bytes: 8n,
    })
    const put = (count: number) =>
      why(
        world.guard.command(app, {
          cmd: bpf_cmd.BPF_MAP_UPDATE_BATCH,
          object: { kind: 'map', map },
          values: Array.from({ length: count }, () => undefined),
        }),
      )
    assert.deepEqual([put(64), put(65)], ['ok', 'attach unreadable EACCES'])
  })
})

describe('mode permissive', () => {
  test('lets through what it would refuse, and tells', () => {
    const world = new World({ mode: 'permissive', limits: { maps: 0 } })
    assert.equal(why(world.map().verdict), 'ok')
    assert.deepEqual(world.guard.takeNotes(), [
      { point: 'map_create', reason: 'maps', verdict: 'would-refuse', delegation: world.delegation },
    ])
    const strict = new World({ limits: { maps: 0 } })
    assert.equal(why(strict.map().verdict), 'map_create maps EDQUOT')
    assert.equal(strict.guard.takeNotes()[0]!.verdict, 'refused')
  })

  test('has no word on reopening a token', () => {
    assert.equal(why(new World({ mode: 'permissive' }).guard.reopen()), 'reopen reopened EACCES')
  })

  test('of the host is for what belongs to no delegation', () => {
    const of = (mode: 'enforce' | 'permissive') => {
      const guard = new Guard({ mode })
      return why(guard.superblock({}, daemon, ns, masks).verdict)
    }
    assert.deepEqual([of('enforce'), of('permissive')], ['superblock not-marked EACCES', 'ok'])
  })

  test('events `all` tell what is allowed, `none` nothing', () => {
    const of = (events: Terms['events']) => {
      const world = new World({ events, limits: { maps: 1 } })
      world.map()
      world.map()
      return world.guard.takeNotes().map(({ verdict }) => verdict)
    }
    assert.deepEqual([of('all'), of('refused'), of('none')], [['allowed', 'refused'], ['refused'], []])
  })
})

describe('ends', () => {
  const lived = { limits: { lifetimeSec: 100 } }

  test('a renewal in time moves the end; what has expired stays so', () => {
    const world = new World(lived)
    assert.equal(world.guard.renew(world.delegation, 50), 'sooner')
    assert.equal(world.guard.renew(world.delegation, 200), 200)
    world.guard.now = 150
    assert.equal(why(world.guard.tokenCmd(world.token, app)), 'ok')
    world.guard.now = 200
    assert.equal(why(world.guard.tokenCmd(world.token, app)), 'token_cmd expired EPERM')
    assert.equal(world.guard.renew(world.delegation, 300), 'expired')
  })

  test('what is written after the end counts, if no call was refused before', () => {
    const [seen, unseen] = [new World(lived), new World(lived)]
    for (const { guard } of [seen, unseen]) guard.now = 100
    assert.equal(why(seen.guard.tokenCmd(seen.token, app)), 'token_cmd expired EPERM')
    for (const { delegation } of [seen, unseen]) delegation.renewedTo = 200
    assert.equal(why(seen.guard.tokenCmd(seen.token, app)), 'token_cmd expired EPERM')
    assert.equal(why(unseen.guard.tokenCmd(unseen.token, app)), 'ok')
  })

  test('a derived delegation is renewed up to the end of its origin, and revoked with it', () => {
    const world = new World({ ...lived, derive: { allowed: true, maxDepth: 1 } })
    world.guard.installPolicy('part', terms({ limits: { lifetimeSec: 10 } }))
    world.guard.deriveBy('daemon', world.delegation)
    const derived = world.lend('part').delegation!
    assert.equal(world.guard.renew(derived, 500), 100)
    world.guard.revoke(world.delegation, [derived])
    assert.equal(derived.revoked, true)
  })
})

describe('deriving', () => {
  test('takes its limits out of the origin’s, and gives them back with its end', () => {
    const world = new World({ limits: { maps: 3 }, derive: { allowed: true, maxDepth: 1 } })
    world.guard.installPolicy('two', terms({ limits: { maps: 2 } }))
    world.guard.deriveBy('daemon', world.delegation)
    const first = world.lend('two')
    assert.deepEqual(
      [why(first.verdict), why(world.lend('two').verdict)],
      ['ok', 'superblock beyond-parent EACCES'],
    )
    assert.deepEqual([why(world.map().verdict), why(world.map().verdict)], ['ok', 'map_create maps EDQUOT'])
    world.guard.superblockFreed(first.delegation!)
    assert.equal(why(world.map().verdict), 'ok')
  })

  test('not deeper than the policy says, and not permissive below what enforces', () => {
    const world = new World({ derive: { allowed: false, maxDepth: 1 } })
    world.guard.deriveBy('daemon', world.delegation)
    assert.equal(why(world.lend('p').verdict), 'superblock beyond-parent EACCES')
    const strict = new World({ derive: { allowed: true, maxDepth: 2 } })
    strict.guard.installPolicy('lax', terms({ mode: 'permissive' }))
    strict.guard.installPolicy('same', terms({}))
    strict.guard.deriveBy('daemon', strict.delegation)
    assert.deepEqual(
      [why(strict.lend('lax').verdict), why(strict.lend('same').verdict)],
      ['superblock beyond-parent EACCES', 'ok'],
    )
  })

  test('a ceiling’s limits and capabilities hold', () => {
    const ceiling = terms({ capabilities: ['bpf'], limits: { maps: 1 } })
    const world = new World({}, { delegator: { ceiling } })
    assert.equal(why(world.guard.tokenCapable(world.token, 'bpf')), 'ok')
    assert.equal(why(world.guard.tokenCapable(world.token, 'perfmon')), 'token_capable capability EPERM')
    assert.deepEqual([why(world.map().verdict), why(world.map().verdict)], ['ok', 'map_create maps EDQUOT'])
  })
})

test('one place: another mount of it, and a moved one, make no token; `bindMount` lifts that', () => {
  const of = (bindMount: boolean) => {
    const { guard, delegation, mount } = new World({ sharing: { bindMount, passToken: false } })
    const token = (at: object, place: string) =>
      why(guard.tokenCreate(delegation, app, ns, at, place).verdict)
    return [
      token(mount, 'here'),
      token({}, 'here'),
      token(mount, 'there'),
      why(guard.move(delegation, mount, true)),
    ]
  }
  const refused = 'token_create elsewhere EACCES'
  assert.deepEqual(of(false), ['ok', refused, refused, 'move elsewhere EACCES'])
  assert.deepEqual(of(true), ['ok', 'ok', 'ok', 'ok'])
})

test('tokens of a delegation that is bound to a cgroup are made there and below', () => {
  const { guard, delegation } = new World({}, { delegator: { cgroup: OWN } })
  const token = (cgroup: Actor['cgroup']) =>
    why(guard.tokenCreate(delegation, { ...app, cgroup }, ns, delegation.mount!).verdict)
  assert.deepEqual(
    [token({ name: 'below', parent: OWN }), token(OTHER)],
    ['ok', 'token_create cgroup EACCES'],
  )
})

test('a confined cgroup is held to rights, limits and commands; what is outside is not', () => {
  const guard = new Guard()
  const policy = terms({ limits: { maps: 1 } })
  const rights = { ...policy.rights, masks: { ...masks, cmds: 1n, maps: 1n << 1n } }
  guard.confine(OWN, { ...policy, rights })
  const root = actor('service')
  const free = { ...root, cgroup: OTHER }
  const map = (who: Actor, type: number) => why(guard.mapCreate(who, undefined, { type, bytes: 8n }).verdict)
  const next = (who: Actor) => why(guard.command(who, { cmd: bpf_cmd.BPF_MAP_GET_NEXT_ID }))
  assert.deepEqual(
    [map(root, 1), map(root, 1), map(root, 2), next(root)],
    ['ok', 'map_create maps EDQUOT', 'map_create rights EPERM', 'command rights EPERM'],
  )
  assert.deepEqual([map(free, 2), next(free)], ['ok', 'ok'])
  guard.unconfine(OWN)
  assert.deepEqual([map(root, 2), next(root)], ['ok', 'ok'])
})
