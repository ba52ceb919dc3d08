/**
 * The program that asks the daemon for a loan to itself and then becomes another: native/run. For
 * who cannot become it, as Node cannot.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { NotFoundError } from '../errors.ts'
import { frontPath } from '../sys/prebuilt.ts'

export interface Front {
  readonly child: ChildProcess
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** With our standard streams; it ends with us. NotFoundError from `ended`: it cannot be started. */
export function startFront(words: readonly string[]): Front {
  const child = spawn(frontPath(), words, { stdio: 'inherit' })
  const ended = new Promise<Awaited<Front['ended']>>((resolve, reject) => {
    child.once('error', cause =>
      reject(
        new NotFoundError('Cannot start bpftoken-run', {
          cause,
          hint: 'Install bpftoken again, or build the clone',
        }),
      ),
    )
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
  return { child, ended }
}
