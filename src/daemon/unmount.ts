/**
 * To unmount a loan wherever it is: in the namespaces of whom it was lent to, and its copies. First
 * where it was made, without looking elsewhere; what is not there is looked for.
 */
import { WAYS } from '../delegation/copies.ts'
import { type DelegatedInstance, findInstances } from '../delegation/instances.ts'
import { openTargetInTime, type Target } from '../delegation/target.ts'
import { BpftokenError, NotFoundError } from '../errors.ts'
import { undelegate } from '../lending/undelegate.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import { openProcess } from '../sys/process.ts'
import { PATIENCE_MS } from './clock.ts'
import { sharesOf } from './mounts-of.ts'
import type { Parts } from './parts.ts'

export interface Unmounted {
  /** Nothing of it is mounted any more, as far as can be seen. */
  readonly gone: boolean
  /** Why not all is, in sentences. */
  readonly left: readonly string[]
}

export async function unmount(
  {
    vocabulary,
    guard,
    book,
  }: Pick<Parts, 'vocabulary' | 'guard'> & { book: Pick<Parts['book'], 'ofDevice'> },
  loan: LoanRecord,
): Promise<Unmounted> {
  const left: string[] = []
  const take = async (
    target: Target,
    path: string,
    mount: number | undefined,
    device: string | undefined,
  ): Promise<boolean> => {
    try {
      const { unmounted } = await undelegate({ recipient: target, path, mount, device, vocabulary, guard })
      for (const one of unmounted.copies.left) left.push(stillAt(one))
      return true
    } catch (error) {
      if (!(error instanceof BpftokenError)) throw error
      if (error instanceof NotFoundError) return false
      left.push(error.message)
      return true
    }
  }
  const { made, recipient } = loan
  const rivals =
    made?.device === undefined ? [] : book.ofDevice(made.device).filter(({ id }) => id !== loan.id)
  // Where another one says the same superblock, only a look tells whose the mount is.
  if (made?.path !== undefined && recipient !== undefined && rivals.length === 0) {
    using target = await targetThere(recipient.pid, recipient)
    if (target !== undefined && (await take(target, made.path, made.mountId, made.device)))
      return { gone: left.length === 0, left }
  }
  const find = async (): Promise<readonly DelegatedInstance[]> =>
    sharesOf([loan, ...rivals], await findInstances(vocabulary)).get(loan.id) ?? []
  // Each one may take copies of it along.
  for (const one of await find()) {
    using target = await anyThere(one)
    if (target === undefined) continue
    await take(target, one.path, one.mountId, one.device)
  }
  const still = await find()
  return { gone: still.length === 0, left: still.length === 0 ? [] : [...left, ...still.map(stillAt)] }
}

/** The first of its processes that is there, and answers in time. */
async function anyThere(one: DelegatedInstance): Promise<Target | undefined> {
  for (const pid of one.pids.slice(0, WAYS)) {
    const target = await targetThere(pid, one)
    if (target !== undefined) return target
  }
  return undefined
}

function stillAt({ path, mountNamespace, pids }: DelegatedInstance): string {
  return `still mounted at ${path} in ${mountNamespace} (process ${pids[0]})`
}

/** The process of that number, if it is in these namespaces: whichever it is, it will do. */
async function targetThere(
  pid: number,
  there: { readonly userNamespace: string; readonly mountNamespace: string },
): Promise<Target | undefined> {
  let target: Target
  try {
    target = await openTargetInTime(openProcess(pid), PATIENCE_MS)
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
  const { userNamespace, mountNamespace } = target.facts
  if (userNamespace === there.userNamespace && mountNamespace === there.mountNamespace) return target
  target[Symbol.dispose]()
  return undefined
}
