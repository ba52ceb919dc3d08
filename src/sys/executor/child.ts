/** Which processes are children of an executor. */
import { readFileSync, statSync } from 'node:fs'
import { namespaceOfTask } from '../namespace.ts'
import { executorPath } from '../prebuilt.ts'
import { procFields, procNumbers } from '../proc-file.ts'
import { ownNamespace } from '../self.ts'
import { unlessGone } from '../tasks.ts'
import { Executor } from './executor.ts'

/**
 * Whether this process is a child of an executor, of ours or of another process of root's. Such a
 * child is inside a target's namespaces for a moment, and still in our network. It is recognised by
 * its parent, and not by its name or program, because a process can choose these. The link `exe` is
 * read only of root's own processes: anybody else could have us wait (src/sys/in-time.ts).
 */
export function isExecutorChild(directory: string): boolean {
  const parent = unlessGone(() => procFields(readFileSync(`${directory}/status`, 'utf8')).get('PPid'))
  if (Executor.isOurs(Number(parent))) return true
  return (
    unlessGone(() => {
      const status = procFields(readFileSync(`/proc/${parent}/status`, 'utf8'))
      if (procNumbers(status.get('Uid') ?? '-')?.every(uid => uid === 0) !== true) return false
      if (namespaceOfTask(Number(parent), 'user') !== ownNamespace('user')) return false
      const runs = statSync(`/proc/${parent}/exe`)
      const executor = statSync(executorPath())
      return runs.dev === executor.dev && runs.ino === executor.ino
    }) === true
  )
}
