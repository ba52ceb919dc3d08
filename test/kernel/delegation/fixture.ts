/**
 * What the tests of a file share, there from before the first until after the last of them. Each of
 * these functions is called once by a file, before its tests; nothing is left behind afterwards.
 */
import { after, before } from 'node:test'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import { MapParts, Targets } from './attributes.ts'
import { Lab } from './lab.ts'
import { leavesNothing } from './leaves-nothing.ts'
import { Workload } from './workload.ts'

export let lab: Lab

export function withLab(): void {
  before(async () => {
    lab = await Lab.open()
  })
  after(async () => {
    lab[Symbol.dispose]()
    await lab.sandbox.exited
  })
  leavesNothing()
}

/** What programs and maps of every type are made of. */
export let targets: Targets
export let parts: MapParts

/** The lab, and these. */
export function withLabAndParts(): void {
  before(() => {
    targets = new Targets()
    parts = new MapParts(targets)
  })
  after(() => parts[Symbol.dispose]())
  withLab()
}

export let workload: Workload
export let target: Target

/** A workload in namespaces of its own, and the target that it is. */
export function withWorkload(): void {
  before(async () => {
    workload = await Workload.sandboxed()
    target = openTarget(workload.pid)
  })
  after(async () => {
    target[Symbol.dispose]()
    workload[Symbol.dispose]()
    await workload.exited
  })
  leavesNothing()
}
