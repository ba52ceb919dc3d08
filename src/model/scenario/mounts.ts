/** Steps with contexts and mounts. */

import type { FsContext } from '../bpffs.ts'
import { decideFs, decidePlace, type FsCall } from '../decide.ts'
import type { Task } from '../task.ts'
import { OK, type Outcome, refusedBy } from './outcome.ts'
import type { ScenarioStep } from './schema.ts'
import type { Stage } from './stage.ts'

/** fsopen, set, create and fsmount. */
export function configureContext(stage: Stage, step: ScenarioStep, task: Task, i: number): Outcome {
  const name = step.context ?? stage.wrong(['spec', 'story', i], 'this needs a field "context"')
  const known = step.do === 'fsopen' ? undefined : stage.found(stage.contexts, name, 'context', i)
  const actor = stage.actors.get(step.as!)!
  if (step.do === 'set' && known!.context.phase === 'options') {
    const said = stage.guard?.option(known!.mark, actor, step.key ?? '', step.value)
    // bpffs looks at what the module has let through.
    if (said?.refused === true) return refusedBy(said)
  }
  const call = fsCall(step, known?.context)
  const decision = decideFs(stage.machine, task, call)
  const outcome: Outcome = { outcome: decision.errno ?? 'ok', checks: decision.checks }
  const { context } = decision
  if (context === undefined) return outcome
  const mark = known?.mark ?? {}
  if (step.do === 'create' && decision.errno === undefined) {
    const said = stage.guard?.superblock(mark, actor, context.userNamespace, context.masks)
    if (said?.verdict.refused === true) {
      stage.contexts.set(name, { context: { ...context, phase: 'failed' }, mark })
      return { ...refusedBy(said.verdict), checks: decision.checks }
    }
    const delegation = said?.delegation
    if (delegation !== undefined) stage.delegations.push(delegation)
    stage.contexts.set(name, { context, mark, ...(delegation === undefined ? {} : { delegation }) })
    return outcome
  }
  stage.contexts.set(name, { ...known, mark, context })
  if (step.do === 'fsmount' && decision.errno === undefined && step.mount !== undefined) {
    const mount = {}
    // Mounted, and put where its name says.
    stage.guard?.move(known?.delegation, mount, false)
    stage.mounts.set(step.mount, {
      instance: { userNamespace: context.userNamespace, masks: context.masks },
      ...(known?.delegation === undefined ? {} : { delegation: known.delegation }),
      mount,
      place: step.mount,
    })
  }
  return outcome
}

export function mountBpffs(stage: Stage, step: ScenarioStep, task: Task, i: number): Outcome {
  const name = step.mount ?? stage.wrong(['spec', 'story', i], 'this needs a field "mount"')
  const actor = stage.actors.get(step.as!)!
  const mark = {}
  const options = Object.entries(step.options ?? {}).map(([key, value]) => ({ key, value }))
  for (const { key, value } of options) {
    const said = stage.guard?.option(mark, actor, key, value, true)
    if (said?.refused === true) return refusedBy(said)
  }
  const decision = decideFs(stage.machine, task, { op: 'mount', options })
  if (decision.instance !== undefined) {
    const { userNamespace, masks } = decision.instance
    const said = stage.guard?.superblock(mark, actor, userNamespace, masks)
    if (said?.verdict.refused === true) return refusedBy(said.verdict)
    stage.mounts.set(name, { instance: decision.instance, mount: {}, place: name })
  }
  return { outcome: decision.errno ?? 'ok', checks: decision.checks }
}

/** A bind mount is another mount of the same; a move changes the place. mount(2) asks no hook. */
export function placeMount(stage: Stage, step: ScenarioStep, task: Task, i: number): Outcome {
  const mounted = stage.found(stage.mounts, step.mount, 'mount', i)
  const to = step.to ?? stage.wrong(['spec', 'story', i], 'this needs a field "to"')
  const decision = decidePlace(task)
  if (decision.errno !== undefined) return { outcome: decision.errno, checks: decision.checks }
  const isMove = step.do === 'move'
  const said = isMove ? stage.guard?.move(mounted.delegation, mounted.mount, true) : undefined
  if (said?.refused === true) return refusedBy(said)
  stage.mounts.set(to, { ...mounted, ...(isMove ? {} : { mount: {} }), place: to })
  if (isMove) stage.mounts.delete(step.mount!)
  return OK
}

function fsCall(step: ScenarioStep, context: FsContext | undefined): FsCall {
  switch (step.do) {
    case 'fsopen':
      return { op: 'fsopen' }
    case 'set':
      return {
        op: 'fsconfig_set',
        context: context!,
        key: step.key ?? '',
        ...(step.value === undefined ? {} : { value: step.value }),
      }
    case 'create':
      return { op: 'fsconfig_create', context: context! }
    default:
      return { op: 'fsmount', context: context! }
  }
}
