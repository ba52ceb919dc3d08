/**
 * Executors whose client has died: each undoes what it had begun, and exits. Until then it may
 * still do what was asked of it last.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { procFields } from '../proc-file.ts'
import { unlessGone } from '../tasks.ts'

/** As the kernel cuts it: 15 bytes. */
const NAME = 'bpftoken-executor'.slice(0, 15)
const POLL_MS = 20

/** False: some are still there after so long, or when nobody wants to know any more. */
export async function orphansGone(limitMs: number, isOver: () => boolean): Promise<boolean> {
  for (const deadline = performance.now() + limitMs; orphans().length > 0; await sleep(POLL_MS))
    if (performance.now() > deadline || isOver()) return false
  return true
}

/** Process ids. The client of one that has any is Node, as we are. */
function orphans(): number[] {
  return readdirSync('/proc').flatMap(name => {
    if (!/^\d+$/.test(name)) return []
    const comm = unlessGone(() => readFileSync(`/proc/${name}/comm`, 'utf8'))
    if (comm?.trimEnd() !== NAME) return []
    const status = unlessGone(() => procFields(readFileSync(`/proc/${name}/status`, 'utf8')))
    // Anybody can call a program so.
    if (
      status
        ?.get('Uid')
        ?.split(/\s+/)
        .every(uid => uid === '0') !== true
    )
      return []
    if (status.get('State')?.startsWith('Z') === true) return []
    const parent = unlessGone(() => readlinkSync(`/proc/${status.get('PPid')}/exe`))
    return parent === process.execPath ? [] : [Number(name)]
  })
}
