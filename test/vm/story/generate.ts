/** Random stories: limits of a policy, and uses of what it lends. */
import type { Policy } from '../../../src/policy/policy.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'
import type { Random } from '../../kernel/model/random.ts'
import { policyOf } from '../borrower.ts'
import {
  CGROUPS,
  FUNCTIONS,
  MAPS,
  type Said,
  SHAPES,
  type Shape,
  SKIPPED,
  type Step,
  type Story,
  type To,
} from './step.ts'

/** Beside those by which something is lent first. */
const STEPS = 34
const SHAPE_NAMES = Object.keys(SHAPES) as Shape[]
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
    capabilities: random.chance(82)
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
    programs: { digests: random.chance(15) ? tags.filter(() => random.chance(50)) : 'any' },
    targets: { functions: random.chance(15) ? FUNCTIONS.filter(() => random.chance(50)) : 'any' },
    sharing: { bindMount: random.chance(30), passToken: random.chance(30) },
    revocable: random.chance(50),
    network: random.chance(50) ? 'own' : 'host',
    cgroups: random.chance(60) ? 'own' : 'any',
    derive: { allowed: random.chance(50), maxDepth: 1 + random.below(2) },
    mode: random.chance(25) ? 'permissive' : 'enforce',
    events: random.pick(['refused', 'refused', 'all', 'none'] as const),
  })
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
  readonly #loans: { readonly maker: number; readonly context: number; readonly mount: number }[] = []
  readonly #made = {
    tokens: [] as number[],
    maps: [] as number[],
    carriers: [] as number[],
    progs: [] as [number, Shape][],
    links: [] as number[],
  }
  #next = 0

  constructor(random: Random, { policies, delegators }: Story, play: (step: Step) => Said) {
    this.#random = random
    this.#policies = policies.length
    this.#delegators = delegators.map(({ as }) => as)
    this.#play = play
    this.#lend()
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
    return this.#random.chance(4) ? { as, caps: 'none' } : { as }
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
    const all = random.chance(85)
    for (const domain of ['cmds', 'maps', 'progs', 'attachs'])
      if (all || random.chance(60))
        set(`delegate_${domain}`, random.chance(92) ? 'any' : random.pick(['0x21', '0x6', '0x40']))
    this.#push({ as: random.chance(98) ? by : random.pick([HOST, OTHER_HOST]), do: 'create', context })
    this.#push({ as: maker, do: 'fsmount', context, mount })
    this.#loans.push({ maker, context, mount })
    if (random.chance(70)) this.#push({ as: maker, do: 'move', mount })
    this.#token(mount, maker)
  }

  #token(mount: number, as: number): void {
    const made = this.#next++
    if (this.#push({ as, do: 'token', mount, made })) this.#made.tokens.push(made)
  }

  #map(type = this.#random.pick(MAPS)): void {
    const random = this.#random
    const made = this.#next++
    const token = random.chance(90) ? random.pick(this.#made.tokens) : undefined
    const entries = type === 'ringbuf' ? 4096 : random.pick([1, 1, 3, 8])
    const by = token === undefined ? {} : { token }
    if (!this.#push({ ...this.#who(), do: 'map', type, entries, ...by, made })) return
    this.#made.maps.push(made)
    if (type === 'prog_array' || type === 'devmap') this.#made.carriers.push(made)
  }

  #prog(shape = this.#random.pick(SHAPE_NAMES)): void {
    const random = this.#random
    const made = this.#next++
    const token = random.chance(90) ? random.pick(this.#made.tokens) : undefined
    const target = shape === 'trace' ? { target: random.below(FUNCTIONS.length) } : {}
    const by = token === undefined ? {} : { token }
    const body = random.pick([0, 0, 1, 2])
    const isMade = this.#push({ ...this.#who(), do: 'prog', shape, body, ...target, ...by, made })
    if (isMade) this.#made.progs.push([made, shape])
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
    if (tokens.length === 0 && this.#loans.length < 3) this.#lend()
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
      const object = random.pick([...tokens, ...maps, ...progs.map(([prog]) => prog), ...links])
      if (this.#push({ do: 'close', object })) this.#forget(object)
    } else this.#manage(how, loan.context)
  }

  #forget(object: number): void {
    const made = this.#made
    for (const kind of ['tokens', 'maps', 'carriers', 'links'] as const)
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
    if ((how >= 98 || (how >= 86 && how < 90)) && this.#loans.length < 4) this.#lend()
  }

  /** What is done with programs. Where there is none of the kind that it takes, one is loaded. */
  #use(how: number): void {
    const random = this.#random
    if (how < 37) {
      const { tokens, progs, carriers } = this.#made
      const all = [...tokens, ...progs.map(([prog]) => prog), ...carriers]
      const object = random.pick(all)
      this.#push({ ...this.#who(), do: 'pass', object })
    } else if (how < 45) this.#link()
    else if (how < 52) this.#attach()
    else if (how < 56) {
      const prog = this.#progOf('sock', 'device')
      if (prog === undefined) this.#prog('sock')
      else this.#push({ ...this.#who(), do: 'detach', prog, to: random.pick(['a', 'b'] as const) })
    } else if (how < 60) this.#change()
    else if (how < 63) {
      const prog = this.#progOf('xdp')
      if (prog === undefined) this.#prog('xdp')
      else this.#push({ ...this.#who(), do: 'run', prog })
    } else if (how < 66) this.#put()
    else this.#open()
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
    const { links } = this.#made
    const prog = this.#progOf('xdp', 'device')
    if (links.length === 0 || prog === undefined) {
      this.#prog('xdp')
      return
    }
    const link = this.#random.pick(links)
    const who = this.#who()
    this.#push(
      this.#random.chance(40) ? { ...who, do: 'unlink', link } : { ...who, do: 'relink', link, prog },
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
    if (this.#random.chance(50))
      this.#push({ as: BORROWER, do: 'pin', prog, mount: this.#random.pick(this.#loans).mount })
    this.#push({ ...this.#caller(), do: 'open', prog })
  }
}
