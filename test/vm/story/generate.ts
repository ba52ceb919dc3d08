/** Random stories: limits of a policy, and uses of what it lends. */
import type { Policy } from '../../../src/policy/policy.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'
import type { Random } from '../../kernel/model/random.ts'
import { policyOf } from '../borrower.ts'
import {
  CGROUPS,
  FUNCTIONS,
  MAPS,
  type MapName,
  MEMBERS,
  type Network,
  type Said,
  SHAPES,
  type Shape,
  SKIPPED,
  SOCKET_MAPS,
  STRANGE_TYPES,
  type Step,
  type Story,
  type To,
} from './step.ts'

/** Beside those by which something is lent first. */
const STEPS = 34
/** Descriptors of a story are few. */
const MOST_LOANS = 6
const SHAPE_NAMES = Object.keys(SHAPES) as Shape[]
/** What a story is about beside lending, by the programs that it has most of. */
const THEMES = {
  plain: ['xdp', 'device', 'sock', 'trace'],
  sockets: ['message', 'stream'],
  dissectors: ['dissector'],
  iterators: ['iter'],
  controls: MEMBERS,
} as const satisfies Record<string, readonly Shape[]>
type Theme = keyof typeof THEMES
const NETWORKS: readonly Network[] = ['net0', 'net1', 'net2', 'net3', 'net4']
/** Contexts: see stage.ts. */
export const HOST = 0
const OTHER_HOST = 1
const BORROWER = 2
const NESTED = 3
const STRANGER = 4
const IN_HOST_NETWORK = 5

function policy(random: Random, tags: readonly string[]): Policy {
  const sometimes = <K extends string, V>(percent: number, key: K, value: () => V) =>
    random.chance(percent) ? ({ [key]: value() } as { [P in K]: V }) : {}
  const most = 1 + random.below(3)
  const narrow = random.chance(8)
  return policyOf({
    masks: {
      cmds: random.chance(4) ? 1n : ANY_MASK,
      maps: narrow ? 0b110n : ANY_MASK,
      progs: random.chance(6) ? 1n << 8n : ANY_MASK,
      attachs: random.chance(4) ? 1n << 6n : ANY_MASK,
    },
    capabilities: random.chance(87)
      ? ['bpf', 'net_admin', 'perfmon', 'sys_admin']
      : (['bpf', 'net_admin', 'perfmon'] as const).filter(() => random.chance(60)),
    limits: {
      ...sometimes(25, 'tokens', () => random.pick([0, 1, 2, 2, most])),
      ...sometimes(25, 'programs', () => random.pick([0, 1, 2, most])),
      ...sometimes(25, 'maps', () => random.pick([0, 1, 2, most])),
      ...sometimes(20, 'mapBytes', () => BigInt(random.pick([8, 40, 100, 5000]))),
      ...sometimes(15, 'instructions', () => random.pick([2, 3])),
      ...sometimes(60, 'lifetimeSec', () => 36_000),
    },
    programs: { digests: random.chance(15) ? some(random, tags) : 'any' },
    targets: { functions: random.chance(15) ? some(random, FUNCTIONS) : 'any' },
    sharing: { bindMount: random.chance(30), passToken: random.chance(30) },
    revocable: random.chance(50),
    network: random.chance(50) ? 'own' : 'host',
    cgroups: random.chance(60) ? 'own' : 'any',
    derive: { allowed: random.chance(50), maxDepth: 1 + random.below(2) },
    mode: random.chance(25) ? 'permissive' : 'enforce',
    events: random.pick(['refused', 'refused', 'all', 'none'] as const),
  })
}

/** A part of them; often one of a few, so that two policies have the same now and then. */
function some(random: Random, all: readonly string[]): string[] {
  const half = random.pick([0, 1, 2, 2])
  return all.filter((_, i) => (half === 2 ? random.chance(60) : i % 2 === half))
}

/** What a story without steps is on paper: to say of each step what it comes to. */
type Begin = (story: Story) => (step: Step) => Said

/** `tags`: digests of the programs, as policies name them. */
export function story(random: Random, tags: readonly string[], begin: Begin): Story {
  const policies = Array.from({ length: 2 + random.below(2) }, () => policy(random, tags))
  const any = (): number => random.below(policies.length)
  const delegators = [
    {
      as: HOST,
      implicit: random.chance(20),
      ...(random.chance(35) ? { ceiling: any() } : {}),
      ...(random.chance(12) ? { only: random.pick(['a', 'a', 'a/below', 'b'] as const) } : {}),
    },
    ...(random.chance(40) ? [{ as: OTHER_HOST, implicit: random.chance(30) }] : []),
  ]
  const mode = random.chance(85) ? ('enforce' as const) : ('permissive' as const)
  const bare = { policies, mode, delegators, steps: [] }
  const tale = new Tale(random, bare, begin(bare))
  return { ...bare, steps: tale.steps }
}

class Tale {
  readonly steps: Step[] = []
  readonly #random: Random
  readonly #policies: number
  readonly #play: (step: Step) => Said
  readonly #delegators: readonly number[]
  readonly #theme: Theme
  readonly #loans: { readonly maker: number; readonly context: number; readonly mount: number }[] = []
  readonly #made = {
    tokens: [] as number[],
    maps: [] as number[],
    carriers: [] as number[],
    sockets: [] as number[],
    controls: [] as number[],
    progs: [] as [number, Shape][],
    links: [] as number[],
    others: [] as number[],
  }
  #next = 0

  constructor(random: Random, { policies, delegators }: Story, play: (step: Step) => Said) {
    this.#random = random
    this.#policies = policies.length
    this.#delegators = delegators.map(({ as }) => as)
    this.#play = play
    this.#theme = random.pick(['plain', 'plain', 'sockets', 'dissectors', 'iterators', 'controls'] as const)
    this.#lend()
    this.#prepare()
    for (let i = 0; i < STEPS; i++) this.#step()
  }

  /** Whether it came to `ok`. */
  #push(step: Step): boolean {
    const { outcome } = this.#play(step)
    if (outcome !== SKIPPED.outcome) this.steps.push(step)
    return outcome === 'ok'
  }

  #who(): { as: number; caps?: 'none' } {
    const { as } = this.#caller()
    // On the host that is the difference between its root and its users.
    const isOfHost = as === HOST || as === OTHER_HOST
    return this.#random.chance(isOfHost ? 25 : 3) ? { as, caps: 'none' } : { as }
  }

  /** Mostly one whom the loans are for. */
  #caller(): { as: number } {
    const how = this.#random.below(100)
    if (how < 60) return { as: this.#random.pick(this.#loans).maker }
    if (how < 73) return { as: IN_HOST_NETWORK }
    if (how < 81) return { as: NESTED }
    if (how < 88) return { as: STRANGER }
    return { as: how < 95 ? HOST : OTHER_HOST }
  }

  /** All that lending takes, with something left out or done by another one now and then. */
  #lend(): void {
    const random = this.#random
    const maker = random.pick([BORROWER, BORROWER, BORROWER, NESTED])
    const by = random.chance(98) ? random.pick(this.#delegators) : OTHER_HOST
    const context = this.#next++
    const mount = this.#next++
    const set = (key: string, value?: string): void => {
      const as = random.chance(99) ? by : random.pick([HOST, OTHER_HOST, BORROWER])
      this.#push({ as, do: 'set', context, key, ...(value === undefined ? {} : { value }) })
    }
    this.#push({ as: maker, do: 'fsopen', context })
    if (random.chance(96)) set('delegate')
    for (let i = random.pick([0, 0, 0, 1, 2]); i >= 0; i--)
      set('abilities', random.chance(96) ? `p${random.below(this.#policies)}` : random.pick(['', 'nobody']))
    const all = random.chance(90)
    for (const domain of ['cmds', 'maps', 'progs', 'attachs'])
      if (all || random.chance(60))
        set(`delegate_${domain}`, random.chance(96) ? 'any' : random.pick(['0x21', '0x6', '0x40']))
    this.#push({ as: random.chance(98) ? by : random.pick([HOST, OTHER_HOST]), do: 'create', context })
    this.#push({ as: maker, do: 'fsmount', context, mount })
    this.#loans.push({ maker, context, mount })
    if (random.chance(70)) this.#push({ as: maker, do: 'move', mount })
    this.#token(mount, maker)
  }

  /** What the theme needs. */
  #prepare(): void {
    if (this.#random.chance(40)) this.#hosts()
    if (this.#theme === 'plain' || this.#made.tokens.length === 0) return
    const as = this.#loans[0]!.maker
    for (const shape of THEMES[this.#theme]) this.#prog(shape, as)
    if (this.#theme === 'sockets') this.#map(this.#random.pick(SOCKET_MAPS), as)
    if (this.#theme !== 'controls') return
    this.#control(as)
    this.#register(as)
  }

  /** The same of the host's, which is nobody's for the guard, and attached here and there. */
  #hosts(): void {
    const random = this.#random
    for (const shape of THEMES[this.#theme]) this.#prog(shape, HOST, false)
    if (this.#theme === 'sockets') this.#map(random.pick(SOCKET_MAPS), HOST, false)
    const as = random.pick([HOST, BORROWER, IN_HOST_NETWORK])
    const [first, shape] = this.#made.progs.at(-1) ?? []
    if (first === undefined) return
    if (shape === 'dissector') this.#push({ as, do: 'attach', prog: first, to: 'none' })
    const sock = this.#progOf('sock')
    if (sock !== undefined) this.#push({ as, do: 'attach', prog: sock, to: random.pick(['a', 'b'] as const) })
  }

  #token(mount: number, as: number): void {
    const made = this.#next++
    if (this.#push({ as, do: 'token', mount, made })) this.#made.tokens.push(made)
  }

  #map(type = this.#mapType(), as?: number, byToken = true): void {
    const random = this.#random
    const made = this.#next++
    const token = byToken && random.chance(90) ? this.#anyToken() : undefined
    const isOps = type === 'struct_ops'
    const entries = type === 'ringbuf' ? 4096 : isOps ? 1 : random.pick([1, 1, 2, 4])
    const more = {
      ...(isOps && random.chance(65) ? { byLink: true as const } : {}),
      ...(token === undefined ? {} : { token }),
    }
    const who = as === undefined ? this.#who() : { as }
    if (!this.#push({ ...who, do: 'map', type, entries, ...more, made })) {
      this.#doubt(token)
      return
    }
    this.#made.maps.push(made)
    if (type === 'prog_array' || type === 'devmap') this.#made.carriers.push(made)
    if (type === 'sockmap' || type === 'sockhash') {
      this.#made.sockets.push(made)
      this.#made.carriers.push(made)
    }
    if (isOps) this.#made.controls.push(made)
  }

  /** A token with which something could not be made is mostly used no more. */
  #doubt(token: number | undefined): void {
    if (token !== undefined && this.#random.chance(60)) this.#forget(token)
  }

  #anyToken(): number | undefined {
    const { tokens } = this.#made
    return tokens.length === 0 ? undefined : this.#random.pick(tokens)
  }

  #mapType(): MapName {
    const random = this.#random
    if (this.#theme === 'sockets' && random.chance(50)) return random.pick(SOCKET_MAPS)
    if (this.#theme === 'controls' && random.chance(50)) return 'struct_ops'
    return random.pick(random.chance(85) ? MAPS : SOCKET_MAPS)
  }

  #shape(): Shape {
    const random = this.#random
    return random.pick(random.chance(75) ? THEMES[this.#theme] : SHAPE_NAMES)
  }

  #prog(shape = this.#shape(), as?: number, byToken = true): void {
    const random = this.#random
    const made = this.#next++
    const token = byToken && random.chance(90) ? this.#anyToken() : undefined
    const target = targetOf(random, shape)
    const by = token === undefined ? {} : { token }
    const body = random.pick([0, 0, 1, 2])
    const who = as === undefined ? this.#who() : { as }
    const isMade = this.#push({ ...who, do: 'prog', shape, body, ...target, ...by, made })
    if (isMade) this.#made.progs.push([made, shape])
    else this.#doubt(token)
  }

  /** A program of one of these shapes, if there is one. */
  #progOf(...shapes: Shape[]): number | undefined {
    const fitting = this.#made.progs.filter(([, shape]) => shapes.includes(shape))
    return fitting.length === 0 ? undefined : this.#random.pick(fitting)[0]
  }

  #to(): To {
    return this.#random.pick(['a', 'a', 'a/below', 'b', 'root'] as const)
  }

  #step(): void {
    const random = this.#random
    const { tokens, maps, progs, links } = this.#made
    const how = random.below(100)
    const loan = random.pick(this.#loans)
    if (tokens.length === 0 && this.#loans.length < MOST_LOANS) this.#lend()
    else if (tokens.length === 0 || how < 6)
      this.#token(loan.mount, random.chance(80) ? loan.maker : this.#caller().as)
    else if (how < 18) this.#map()
    else if (how < 34) this.#prog()
    else if (how < 70) this.#use(how)
    else if (how < 74) {
      const made = this.#next++
      if (this.#push({ as: loan.maker, do: 'copy', mount: loan.mount, made }))
        this.#loans.push({ ...loan, mount: made })
    } else if (how < 76) this.#push({ as: loan.maker, do: 'move', mount: loan.mount })
    else if (how < 80) {
      const object = random.pick([
        ...[...tokens, ...maps, ...links, ...this.#made.others],
        ...progs.map(([prog]) => prog),
      ])
      if (this.#push({ do: 'close', object })) this.#forget(object)
    } else this.#manage(how, loan.context)
  }

  #forget(object: number): void {
    const made = this.#made
    for (const kind of ['tokens', 'maps', 'carriers', 'sockets', 'controls', 'links', 'others'] as const)
      made[kind] = made[kind].filter(one => one !== object)
    made.progs = made.progs.filter(([prog]) => prog !== object)
  }

  #manage(how: number, of: number): void {
    const random = this.#random
    const cgroup = random.pick(CGROUPS)
    const policy = random.below(this.#policies)
    if (how < 82) this.#push({ do: 'revoke', of })
    else if (how < 84) this.#push({ do: 'expire', of })
    else if (how < 86) this.#push({ do: 'renew', of })
    else if (how < 90) {
      const by = random.pick([HOST, HOST, OTHER_HOST])
      this.#push({ do: 'derive', by, ...(random.chance(85) ? { of } : {}) })
    } else if (how < 94) this.#push({ do: 'enter', who: random.below(6), cgroup })
    else if (how < 97) this.#push({ do: 'confine', cgroup, policy })
    else if (how < 98) this.#push({ do: 'unconfine', cgroup })
    if ((how >= 98 || (how >= 86 && how < 90)) && this.#loans.length < MOST_LOANS) this.#lend()
  }

  /** What is done with programs. Where there is none of the kind that it takes, one is loaded. */
  #use(how: number): void {
    const random = this.#random
    if (how < 37) {
      const { tokens, progs, carriers } = this.#made
      const all = [...tokens, ...progs.map(([prog]) => prog), ...carriers]
      const object = random.pick(all)
      this.#push({ ...this.#who(), do: 'pass', object })
    } else if (random.chance(7)) this.#strange()
    else if (this.#theme !== 'plain' && random.chance(65)) this.#themed()
    else if (how < 45) this.#link()
    else if (how < 52) this.#attach()
    else if (how < 56) {
      const prog = this.#progOf('sock', 'device')
      if (prog === undefined) this.#prog('sock')
      else this.#detach(prog, random.pick(['a', 'b'] as const))
    } else if (how < 60) this.#change()
    else if (how < 62) {
      const prog = this.#progOf('xdp')
      if (prog === undefined) this.#prog('xdp')
      else this.#push({ ...this.#who(), do: 'run', prog })
    } else if (how < 64) this.#hold()
    else if (how < 66) this.#put()
    else this.#open()
  }

  /** Maps are bound to a program, or frozen. */
  #hold(): void {
    const random = this.#random
    const { maps, progs, carriers } = this.#made
    if (maps.length === 0 || progs.length === 0) this.#map()
    else if (random.chance(60)) {
      const [prog] = random.pick(progs)
      this.#push({ ...this.#who(), do: 'bind', prog, map: random.pick(maps) })
    } else this.#push({ ...this.#who(), do: 'freeze', map: random.pick([...maps, ...carriers]) })
  }

  /** An attach type that does not go with the program, and that the guard may not know. */
  #strange(): void {
    const random = this.#random
    const prog = this.#progOf('xdp', 'device', 'sock', 'message', 'stream', 'dissector')
    if (prog === undefined) {
      this.#prog('device')
      return
    }
    const type = random.pick(STRANGE_TYPES)
    const { sockets } = this.#made
    const isMap = sockets.length > 0 && random.chance(40)
    const to = random.pick<To>(isMap ? sockets : ['a', 'a', 'b', 'root', 'lo', ...NETWORKS])
    const who = this.#who()
    const verb = random.pick(['link', 'attach', 'detach'] as const)
    if (verb === 'link') this.#push({ ...who, do: 'link', prog, to, type, made: this.#next++ })
    else if (verb === 'detach' && random.chance(30))
      this.#push({ ...who, do: 'detach', prog, to, type, isUnnamed: true })
    else this.#push({ ...who, do: verb, prog, to, type })
  }

  #themed(): void {
    if (this.#theme === 'sockets') this.#sockets()
    else if (this.#theme === 'dissectors') this.#dissectors()
    else if (this.#theme === 'iterators') this.#iterators()
    else this.#controls()
  }

  /** Of several at a cgroup the kernel wants to know which. */
  #detach(prog: number, to: To): void {
    const mayBeUnnamed = this.#shapeOf(prog) !== 'device'
    const unnamed = mayBeUnnamed && this.#random.chance(15) ? { isUnnamed: true as const } : {}
    this.#push({ ...this.#who(), do: 'detach', prog, to, ...unnamed })
  }

  #linkTo(prog: number, to: To): void {
    const made = this.#next++
    if (this.#push({ ...this.#who(), do: 'link', prog, to, made })) this.#made.links.push(made)
  }

  #sockets(): void {
    const random = this.#random
    const prog = this.#progOf('message', 'stream')
    const { sockets } = this.#made
    const how = random.below(100)
    if (prog === undefined) this.#prog()
    else if (sockets.length === 0) this.#map(random.pick(SOCKET_MAPS))
    else {
      const to = random.pick(sockets)
      if (how < 35) this.#linkTo(prog, to)
      else if (how < 60) this.#push({ ...this.#who(), do: 'attach', prog, to })
      else if (how < 75) this.#detach(prog, to)
      else if (how < 85) this.#push({ ...this.#who(), do: 'put', map: to, prog })
      else this.#changeTo(prog)
    }
  }

  #dissectors(): void {
    const random = this.#random
    const prog = this.#progOf('dissector')
    const how = random.below(100)
    if (prog === undefined) this.#prog()
    else if (how < 30) this.#push({ ...this.#who(), do: 'attach', prog, to: 'none' })
    else if (how < 55) this.#linkTo(prog, random.pick(NETWORKS))
    else if (how < 75) this.#detach(prog, 'none')
    else this.#changeTo(prog)
  }

  #iterators(): void {
    const random = this.#random
    const prog = this.#progOf('iter')
    const { links, others } = this.#made
    const how = random.below(100)
    if (prog === undefined) this.#prog()
    else if (links.length === 0 || how < 25) this.#linkTo(prog, 'none')
    else if (how < 55) {
      const made = this.#next++
      if (this.#push({ ...this.#who(), do: 'iterate', link: random.pick(links), made })) others.push(made)
    } else if (how < 85) this.#openPinned(random.pick(links))
    else this.#changeTo(prog)
  }

  /** A value that is whole, but for now and then. */
  #fill(map: number, who: { as: number; caps?: 'none' }): void {
    const random = this.#random
    const progs = MEMBERS.map(shape => this.#progOf(shape)).filter(prog => prog !== undefined)
    if (random.chance(8)) progs.pop()
    this.#push({ ...who, do: 'fill', map, name: random.below(2), progs })
  }

  #control(as?: number): void {
    this.#map('struct_ops', as)
    const map = this.#made.controls.at(-1)
    if (map !== undefined) this.#fill(map, as === undefined ? this.#who() : { as })
  }

  #register(as?: number): void {
    const { controls, maps, links } = this.#made
    const all = controls.length > 0 && this.#random.chance(95) ? controls : maps
    if (all.length === 0) return
    const made = this.#next++
    const who = as === undefined ? this.#who() : { as }
    if (this.#push({ ...who, do: 'register', map: this.#random.pick(all), made })) links.push(made)
  }

  #controls(): void {
    const random = this.#random
    const { controls } = this.#made
    const missing = MEMBERS.filter(shape => this.#progOf(shape) === undefined)
    const how = random.below(100)
    if (missing.length > 0 && random.chance(85)) this.#prog(random.pick(missing))
    else if (controls.length === 0 || how < 15) this.#control()
    else if (how < 40) this.#fill(random.pick(controls), this.#who())
    else if (how < 75) this.#register()
    else this.#changeTo(random.pick(controls))
  }

  #shapeOf(prog: number): Shape {
    return this.#made.progs.find(([made]) => made === prog)![1]
  }

  #link(): void {
    const prog = this.#progOf('xdp', 'device')
    if (prog === undefined) {
      this.#prog('device')
      return
    }
    const made = this.#next++
    const to = this.#shapeOf(prog) === 'xdp' ? 'lo' : this.#to()
    if (this.#push({ ...this.#who(), do: 'link', prog, to, made })) this.#made.links.push(made)
  }

  #attach(): void {
    const random = this.#random
    const prog = this.#progOf('sock', 'device')
    if (prog === undefined) {
      this.#prog('sock')
      return
    }
    // What is attached alone is so in no cgroup that is below another one's.
    const isAlone = this.#shapeOf(prog) === 'sock'
    const to = random.pick(isAlone ? (['a', 'b'] as const) : CGROUPS)
    const other = isAlone || !random.chance(25) ? undefined : this.#progOf('device')
    const replaces = other === undefined ? {} : { replaces: other }
    this.#push({ ...this.#who(), do: 'attach', prog, to, ...replaces })
  }

  #change(): void {
    const prog = this.#progOf('xdp', 'device')
    if (prog === undefined) this.#prog('xdp')
    else this.#changeTo(prog)
  }

  /** A link is detached, or another program or map takes its place. */
  #changeTo(next: number): void {
    const { links } = this.#made
    if (links.length === 0) {
      this.#prog()
      return
    }
    // Now and then it is no link.
    const link = this.#random.chance(96) ? this.#random.pick(links) : next
    const who = this.#who()
    this.#push(
      this.#random.chance(40) ? { ...who, do: 'unlink', link } : { ...who, do: 'relink', link, prog: next },
    )
  }

  #put(): void {
    const random = this.#random
    const prog = this.#progOf('xdp')
    const { carriers } = this.#made
    if (prog === undefined) this.#prog('xdp')
    else if (carriers.length === 0) this.#map(random.pick(['prog_array', 'devmap'] as const))
    else this.#push({ ...this.#who(), do: 'put', map: random.pick(carriers), prog })
  }

  #open(): void {
    const prog = this.#progOf(...SHAPE_NAMES)
    if (prog === undefined) {
      this.#prog()
      return
    }
    this.#openPinned(prog)
  }

  #openPinned(object: number): void {
    if (this.#random.chance(50))
      this.#push({ as: BORROWER, do: 'pin', object, mount: this.#random.pick(this.#loans).mount })
    this.#push({ ...this.#caller(), do: 'open', object })
  }
}

/** What of FUNCTIONS a program of this shape attaches to, if it does. */
function targetOf(random: Random, shape: Shape): { target?: number } {
  if (shape === 'trace') return { target: random.below(2) }
  if (shape === 'iter') return { target: 2 }
  return (MEMBERS as readonly Shape[]).includes(shape) ? { target: 3 } : {}
}
