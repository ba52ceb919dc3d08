/**
 * A daemon that dies: `crash-worker.ts DIRECTORY PID OPERATION POINT` does the operation for
 * process PID, as root, and kills itself with SIGKILL at the point of that number. Points are
 * counted as they are reached: around each write of the registry and of the audit, and at each step
 * of the executor. With point 0 it says how many there are.
 */

import type { Parts } from '../../../src/daemon/parts.ts'
import { planFor } from '../../../src/delegation/delegate.ts'
import { execute } from '../../../src/delegation/execute.ts'
import { journaled, type Loan } from '../../../src/lending/journal.ts'
import type { AuditEntry } from '../../../src/registry/audit-record.ts'
import type { Change } from '../../../src/registry/change.ts'
import { ServiceLab } from './service-lab.ts'

const [directory = '', pid = '', operation = '', at = ''] = process.argv.slice(2)
const PATH = '/sys/fs/bpf'

const names: string[] = []
let counting = false

function point(name: string): void {
  if (!counting) return
  names.push(name)
  if (names.length === Number(at)) process.kill(process.pid, 'SIGKILL')
}

/** Around each call of a method that writes. */
function withPoints<M extends string>(
  of: { [K in M]: (...args: never[]) => Promise<unknown> },
  method: M,
  /** Undefined: it is no part of the operation. */
  what: (...args: never[]) => string | undefined,
): void {
  const real = of[method].bind(of)
  of[method] = (async (...args: never[]) => {
    const name = what(...args)
    if (name === undefined) return real(...args)
    point(`before ${name}`)
    const result = await real(...args)
    point(`after ${name}`)
    return result
  }) as (typeof of)[M]
}

/** As src/lending makes it, with a pause after each step. */
const lend: Parts['lend'] = ({ facts, target, vocabulary, confirm }, how) =>
  journaled(how, { do: 'lend', ...facts }, async did => {
    const { place, policy } = facts
    if (!('path' in place)) throw new Error('only by path')
    const plan = planFor(policy, target, place.path)
    let made: Loan | undefined
    let step = 0
    await execute(
      plan.flatMap(action => [action, { do: 'pause' as const }]),
      target,
      vocabulary,
      {
        confirm,
        paused: () => point(`executor: ${plan[step++]!.do}`),
        reached: mount => {
          made = { target: target.facts, place, mount, delegation: undefined }
          return did(made)
        },
      },
    )
    return made!
  })

async function main(): Promise<void> {
  const lab = await ServiceLab.open({
    directory,
    lend,
    prepare({ registry, audit }) {
      // What others lend on this machine meanwhile is adopted: that comes when it comes.
      withPoints(registry, 'put', (({ loan }: Change) =>
        loan?.kind === 'adopted' ? undefined : `put ${loan?.state ?? 'other'}`) as never)
      withPoints(audit, 'append', (({ event, facts }: AuditEntry) =>
        facts['kind'] === 'adopted' ? undefined : `audit ${event}`) as never)
    },
  })
  const root = await lab.root()
  const target = { policy: { name: 'roots' }, recipient: { pid: Number(pid) }, place: { path: PATH } }
  counting = operation !== 'revoke' && operation !== 'expire'
  const body = operation === 'expire' ? { ...target, lifetimeSec: 1 } : target
  const { body: lent } = await lab.ask('lend', root, { body }, { key: 'crash' })
  if (!('loan' in lent)) throw new Error('nothing was lent')
  process.stdout.write(`lent ${lent.loan.id}\n`)
  counting = true
  if (operation === 'revoke') await lab.ask('revoke', root, { body: { what: { loan: lent.loan.id } } })
  if (operation === 'expire')
    while (!names.includes('after audit loan.ended')) await new Promise(resolve => setTimeout(resolve, 20))
  counting = false
  await lab.ask('revoke', root, { body: { what: { all: true } } })
  process.stdout.write(`points ${JSON.stringify(names)}\n`)
  await lab[Symbol.asyncDispose]()
}

void main()
