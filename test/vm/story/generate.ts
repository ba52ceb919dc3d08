/** Random stories: limits of a policy, and uses of what it lends. */
import type { Policy } from '../../../src/policy/policy.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'
import type { Random } from '../../kernel/model/random.ts'
import { policyOf } from '../borrower.ts'
import {
  BODIES,
  CGROUPS,
  FUNCTIONS,
  MAPS,
  SHAPES,
  type Shape,
  type Step,
  type Story,
  type To,
} from './step.ts'

const STEPS = 26
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
  const narrow = random.chance(15)
  return policyOf({
    masks: {
      cmds: random.chance(8) ? 1n : ANY_MASK,
      maps: narrow ? 0b110n : ANY_MASK,
      progs: random.chance(12) ? 1n << 8n : ANY_MASK,
      attachs: random.chance(6) ? 1n << 6n : ANY_MASK,
    },
    capabilities: random.chance(75)
      ? ['bpf', 'net_admin', 'perfmon', 'sys_admin']
      : (['bpf', 'net_admin', 'perfmon'] as const).filter(() => random.chance(60)),
    limits: {
      ...sometimes(25, 'tokens', () => random.below(most + 1)),
      ...sometimes(25, 'programs', () => random.below(most + 1)),
      ...sometimes(25, 'maps', () => random.below(most + 1)),
      ...sometimes(20, 'mapBytes', () => BigInt(random.pick([0, 8, 40, 100, 5000]))),
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

/** `tags`: digests of the programs, as policies name them. */
export function story(random: Random, tags: readonly string[]): Story {
  const policies = Array.from({ length: 2 + random.below(2) }, () => policy(random, tags))
  const any = (): number => random.below(policies.length)
  const delegators = [
    {
      as: HOST,
      implicit: random.chance(20),
      ...(random.chance(35) ? { ceiling: any() } : {}),
      ...(random.chance(15) ? { only: random.pick(CGROUPS) } : {}),
    },
    ...(random.chance(40) ? [{ as: OTHER_HOST, implicit: random.chance(30) }] : []),
  ]
  const tale = new Tale(random, policies.length)
  return { policies, mode: random.chance(85) ? 'enforce' : 'permissive', delegators, steps: tale.steps }
}

class Tale {
  readonly steps: Step[] = []
  readonly #random: Random
  readonly #policies: number
  readonly #loans: { readonly maker: number; readonly context: number; readonly mount: number }[] = []
  readonly #made = {
    tokens: [] as number[],
    maps: [] as number[],
    carriers: [] as number[],
    progs: [] as [number, Shape][],
    links: [] as number[],
  }
  #next = 0

  constructor(random: Random, policies: number) {
    this.#random = random
    this.#policies = policies
    this.#lend()
    while (this.steps.length < STEPS) this.#step()
  }

  #who(): { as: number; caps?: 'none' } {
    const { as } = this.#caller()
    return this.#random.chance(4) ? { as, caps: 'none' } : { as }
  }

  #caller(): { as: number } {
    const how = this.#random.below(100)
    if (how < 52) return { as: BORROWER }
    if (how < 66) return { as: IN_HOST_NETWORK }
    if (how < 76) return { as: NESTED }
    if (how < 86) return { as: STRANGER }
    return { as: how < 95 ? HOST : OTHER_HOST }
  }

  /** All that lending takes, with something left out or done by another one now and then. */
  #lend(): void {
    const random = this.#random
    const maker = random.pick([BORROWER, BORROWER, BORROWER, NESTED])
    const by = random.chance(85) ? HOST : OTHER_HOST
    const context = this.#next++
    const mount = this.#next++
    const set = (key: string, value?: string): void => {
      const as = random.chance(96) ? by : random.pick([HOST, OTHER_HOST, BORROWER])
      this.steps.push({ as, do: 'set', context, key, ...(value === undefined ? {} : { value }) })
    }
    this.steps.push({ as: maker, do: 'fsopen', context })
    if (random.chance(88)) set('delegate')
    for (let i = random.below(3); i >= 0; i--)
      set('abilities', random.chance(92) ? `p${random.below(this.#policies)}` : random.pick(['', 'nobody']))
    const all = random.chance(60)
    for (const domain of ['cmds', 'maps', 'progs', 'attachs'])
      if (all || random.chance(60))
        set(`delegate_${domain}`, random.chance(55) ? 'any' : random.pick(['0x21', '0x6', '0x40']))
    this.steps.push({ as: random.chance(94) ? by : random.pick([HOST, OTHER_HOST]), do: 'create', context })
    this.steps.push({ as: maker, do: 'fsmount', context, mount })
    if (random.chance(70)) this.steps.push({ as: maker, do: 'move', mount })
    this.#loans.push({ maker, context, mount })
    if (random.chance(85)) this.#token(mount, maker)
  }

  #token(mount: number, as: number): void {
    const made = this.#next++
    this.steps.push({ as, do: 'token', mount, made })
    this.#made.tokens.push(made)
  }

  #map(type = this.#random.pick(MAPS)): void {
    const random = this.#random
    const made = this.#next++
    const token = random.chance(88) ? random.pick(this.#made.tokens) : undefined
    const entries = type === 'ringbuf' ? 4096 : random.pick([1, 1, 3, 8])
    this.steps.push({
      ...this.#who(),
      do: 'map',
      type,
      entries,
      ...(token === undefined ? {} : { token }),
      made,
    })
    this.#made.maps.push(made)
    if (type === 'prog_array' || type === 'devmap') this.#made.carriers.push(made)
  }

  #prog(shape = this.#random.pick(SHAPE_NAMES)): void {
    const random = this.#random
    const made = this.#next++
    const token = random.chance(88) ? random.pick(this.#made.tokens) : undefined
    this.steps.push({
      ...this.#who(),
      do: 'prog',
      shape,
      body: random.below(BODIES),
      ...(shape === 'fentry' ? { target: random.below(FUNCTIONS.length) } : {}),
      ...(token === undefined ? {} : { token }),
      made,
    })
    this.#made.progs.push([made, shape])
  }

  /** A program of one of these shapes, if there is one. */
  #progOf(...shapes: Shape[]): number | undefined {
    const fitting = this.#made.progs.filter(([, shape]) => shapes.includes(shape))
    return fitting.length === 0 ? undefined : this.#random.pick(fitting)[0]
  }

  #to(): To {
    return this.#random.pick(['a', 'a', 'a/below', 'b', 'root'] as const)
  }

  #push(step: Step): void {
    this.steps.push(step)
  }

  #step(): void {
    const random = this.#random
    const { tokens, maps, progs, links } = this.#made
    const how = random.below(100)
    const loan = random.pick(this.#loans)
    if (tokens.length === 0 || how < 6)
      this.#token(loan.mount, random.chance(80) ? loan.maker : this.#caller().as)
    else if (how < 18) this.#map()
    else if (how < 34) this.#prog()
    else if (how < 70) this.#use(how)
    else if (how < 74) {
      const made = this.#next++
      this.#push({ as: loan.maker, do: 'copy', mount: loan.mount, made })
      this.#loans.push({ ...loan, mount: made })
    } else if (how < 76) this.#push({ as: loan.maker, do: 'move', mount: loan.mount })
    else if (how < 80) {
      const object = random.pick([...tokens, ...maps, ...progs.map(([prog]) => prog), ...links])
      this.#push({ do: 'close', object })
    } else this.#manage(how, loan.context)
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
      const object = random.pick([...this.#made.tokens, ...this.#made.progs.map(([prog]) => prog)])
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
    this.#made.links.push(made)
    this.#push({ ...this.#who(), do: 'link', prog, to, made })
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
