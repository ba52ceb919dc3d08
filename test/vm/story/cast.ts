/** Who plays: the executor's contexts, and each as the model sees it. */
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task } from '../../../src/model/task.ts'

const ALL: Task['capabilities'] = new Set(MODEL_CAPABILITIES)
const A = nestedIn(INITIAL, 'a', 0, [{ inside: 0, host: 100_000, count: 65_536 }])
const B = nestedIn(A, 'b', 100_000, [{ inside: 0, host: 100_000, count: 1000 }])
const C = nestedIn(INITIAL, 'c', 0, [{ inside: 0, host: 200_000, count: 65_536 }])

interface Member {
  readonly task: Task
  /** In which network: 0 is the host's. */
  readonly network: number
  /** The context that spawns it. */
  readonly parent?: number
}

/** By the executor's number of the context. */
export const CAST: readonly Member[] = [
  { task: { userNamespace: INITIAL, uid: 0, capabilities: ALL }, network: 0 },
  { task: { userNamespace: INITIAL, uid: 1000, capabilities: ALL }, network: 1, parent: 0 },
  { task: { userNamespace: A, uid: 100_000, capabilities: ALL }, network: 2, parent: 5 },
  { task: { userNamespace: B, uid: 100_000, capabilities: ALL }, network: 3, parent: 2 },
  { task: { userNamespace: C, uid: 200_000, capabilities: ALL }, network: 4, parent: 0 },
  { task: { userNamespace: A, uid: 100_000, capabilities: ALL }, network: 0, parent: 0 },
]
/** Each after the one that spawns it. */
export const ORDER = [1, 5, 4, 2, 3] as const
