/** Runs cases on the kernel and in the model, compares, and makes what differs small. */

import { decide } from '../../../src/model/decide.ts'
import type { Decision, Mutation } from '../../../src/model/judge.ts'
import { bpf_attr_prog_attach, bpf_cmd } from '../../../src/uapi/bpf.ts'
import { Batch, MAX_STEPS } from './executor.ts'
import { generate } from './generate.ts'
import { machineWith } from './hooks.ts'
import { ALL_CAPABILITIES, ALL_CAPS, type Lab, slotText, taskOf } from './lab.ts'
import { outcomeOf } from './outcome.ts'
import type { Random } from './random.ts'
import { type BpfSpec, callOf, slotAt, stepOf } from './spec.ts'

export interface Difference {
  readonly spec: BpfSpec
  readonly kernel: string
  readonly model: Decision
}

export const predicted = (decision: Decision): string => decision.errno ?? 'ok'

export function predict(lab: Lab, spec: BpfSpec): Decision {
  return question(lab, spec)()
}

/** A case as the model is asked, by a model with a mutation, too; later tokens do not change it. */
export function question(lab: Lab, spec: BpfSpec): (mutation?: Mutation) => Decision {
  const machine = machineWith(lab.machine, spec.refusing)
  const [task, call] = [taskOf(spec.context, spec.caps), callOf(lab, spec)]
  return mutation => decide(machine, task, call, mutation)
}

/** A case by case order that changes contexts seldom; what the kernel said, in the order of `specs`. */
export async function onKernel(lab: Lab, specs: readonly BpfSpec[]): Promise<string[]> {
  const batch = new Batch()
  const order = specs.map((_, i) => i).sort((a, b) => specs[a]!.context - specs[b]!.context)
  const outcomes = new Array<string>(specs.length)
  const places: number[] = []
  const finish = async (): Promise<void> => {
    const results = await lab.executor.run(batch)
    for (const [at, place] of places.entries()) if (place >= 0) outcomes[place] = outcomeOf(results[at]!)
    places.length = 0
  }
  for (const place of order) {
    const spec = specs[place]!
    if (batch.count > MAX_STEPS - 2) await finish()
    batch.add(stepOf(lab, spec))
    places.push(place)
    if (spec.op === 'prog_attach' && spec.target !== undefined) {
      batch.add(undo(lab, spec))
      places.push(-1)
    }
    if (spec.op === 'obj_pin' && slotAt(lab, spec.directory).pins?.[spec.name] === undefined) {
      const a = lab.executor.text(spec.name)
      const cmd = slotAt(lab, spec.directory).number
      batch.add({ context: 0, op: 'unlink', capabilities: ALL_CAPABILITIES, cmd, a })
      places.push(-1)
    }
  }
  await finish()
  return outcomes
}

/** Takes away what a case may have attached. */
function undo(lab: Lab, spec: BpfSpec & { op: 'link_create' | 'prog_attach' | 'prog_detach' }) {
  const attr = bpf_attr_prog_attach.encode({
    target_fd: slotAt(lab, spec.target!).number,
    attach_bpf_fd: slotAt(lab, spec.prog).number,
    attach_type: spec.attach,
  })
  return {
    context: spec.context,
    op: 'bpf' as const,
    capabilities: ALL_CAPABILITIES,
    cmd: bpf_cmd.BPF_PROG_DETACH,
    attr,
    size: 16,
  }
}

/** One round of cases: those that differ. */
export async function round(
  lab: Lab,
  random: Random,
  count: number,
  seen: (what: string) => void = () => {},
): Promise<Difference[]> {
  const specs = Array.from({ length: count }, () => generate(random, lab))
  const running = onKernel(lab, specs)
  const decisions = specs.map(spec => predict(lab, spec))
  const outcomes = await running
  for (const [i, { op }] of specs.entries()) seen(`${op} ${outcomes[i]}`)
  return specs.flatMap((spec, i) =>
    outcomes[i] === predicted(decisions[i]!) ? [] : [{ spec, kernel: outcomes[i]!, model: decisions[i]! }],
  )
}

const KEPT = new Set([
  'object',
  'directory',
  'name',
  'op',
  'context',
  'caps',
  'type',
  'bpffs',
  'attach',
  'prog',
  'target',
  'ifindex',
])

/** The same difference with as little as possible: fields left out, capabilities all or none. */
export async function shrink(lab: Lab, difference: Difference): Promise<Difference> {
  let best = difference
  for (let smaller = true; smaller; ) {
    smaller = false
    for (const spec of simpler(best.spec)) {
      const [kernel] = await onKernel(lab, [spec])
      const model = predict(lab, spec)
      if (kernel === predicted(model)) continue
      best = { spec, kernel: kernel!, model }
      smaller = true
      break
    }
  }
  return best
}

function* simpler(spec: BpfSpec): Generator<BpfSpec> {
  for (const key of Object.keys(spec)) {
    if (KEPT.has(key)) continue
    const { [key as 'op']: _, ...rest } = spec
    yield rest as BpfSpec
  }
  if (spec.context !== 0) yield { ...spec, context: 0 }
  // Whoever has none may ask for a map of gigabytes, since it is not made: see map-edges.ts.
  if (spec.caps !== ALL_CAPS && spec.caps !== 0) yield { ...spec, caps: ALL_CAPS }
}

/** For people: the case, and both sides' words. */
export function describe(lab: Lab, { spec, kernel, model }: Difference): string {
  const slots = Object.entries(spec)
    .filter(([key]) =>
      ['token', 'bpffs', 'object', 'directory', 'prog', 'target', 'btf', 'inner', 'targetFile'].includes(key),
    )
    .map(([key, slot]) => `  ${key}: ${slotText(slotAt(lab, slot as number))}`)
  const checks = model.checks.map(
    ({ rule, found, passed }) => `  ${passed ? 'passed' : 'FAILED'} ${rule.name}: ${found}`,
  )
  return [
    JSON.stringify(spec),
    ...slots,
    `  kernel: ${kernel}`,
    `  model:  ${predicted(model)}`,
    ...checks,
  ].join('\n')
}
