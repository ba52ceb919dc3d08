/**
 * A daemon that dies: `crash-worker.ts DIRECTORY PID OPERATION POINT` does the operation for process
 * PID, as root, and kills itself with SIGKILL at the point of that number. Points are counted as
 * they are reached: around each write of the registry and of the audit, and at each step of the
 * executor. With point 0 it says how many there are. `approve` approves what waits already.
 */
import { join } from 'node:path'
import type { Parts } from '../../../src/daemon/parts.ts'
import { planFor } from '../../../src/delegation/delegate.ts'
import { execute } from '../../../src/delegation/execute.ts'
import { journaled, type Loan } from '../../../src/lending/journal.ts'
import { confirmed } from '../../../src/lending/loan.ts'
import type { AuditEntry } from '../../../src/registry/audit-record.ts'
import type { Change } from '../../../src/registry/change.ts'
import { PretendedGuard } from './pretended-guard.ts'
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

/** Only with a guard can be derived. */
const guarded = operation === 'derive' ? new PretendedGuard(join(directory, 'guard.json')) : undefined

/** As src/lending makes it, with a pause after each step. */
const lend: Parts['lend'] = ({ facts, target, vocabulary, confirm }, how) =>
  journaled(how, { do: 'lend', ...facts }, async did => {
    const { place, policy } = facts
    if (!('path' in place)) throw new Error('only by path')
    const plan = planFor(policy, target, place.path)
    let made: Loan | undefined
    let step = 0
    let delegation: ReturnType<PretendedGuard['begin']> | undefined
    await execute(
      plan.flatMap(action => [action, { do: 'pause' as const }]),
      target,
      vocabulary,
      {
        confirm: confirmed(confirm, how.journal),
        paused: () => {
          const done = plan[step++]!.do
          if (done === 'createSuperblock') delegation = guarded?.begin(facts)
          point(`executor: ${done}`)
        },
        reached: mount => {
          if (delegation !== undefined) guarded!.end(delegation, mount?.device)
          made = { target: target.facts, place, mount, delegation }
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
    ...(guarded === undefined ? {} : { guard: guarded.guard }),
    prepare({ registry, audit }) {
      // What others lend on this machine meanwhile is adopted: that comes when it comes.
      withPoints(registry, 'put', (({ loan, request }: Change) =>
        loan?.kind === 'adopted'
          ? undefined
          : `put ${[loan?.state, request?.state].filter(part => part !== undefined).join(' ')}`) as never)
      withPoints(audit, 'append', (({ event, facts }: AuditEntry) =>
        facts['kind'] === 'adopted' ? undefined : `audit ${event}`) as never)
    },
  })
  const root = await lab.root()
  const target = { policy: { name: 'roots' }, recipient: { pid: Number(pid) }, place: { path: PATH } }
  const lendFirst = async (also: object): Promise<string> => {
    const { body } = await lab.ask('lend', root, { body: { ...target, ...also } }, { key: 'crash' })
    if (!('loan' in body) || body.loan === undefined) throw new Error('nothing was lent')
    return body.loan.id
  }
  const id =
    operation === 'approve'
      ? ''
      : await (async () => {
          // Of these two the loan is the operation, or its end.
          counting = operation === 'lend'
          const lent = await lendFirst(
            operation === 'expire' ? { lifetimeSec: 1 } : operation === 'renew' ? { lifetimeSec: 3600 } : {},
          )
          process.stdout.write(`lent ${lent}\n`)
          return lent
        })()
  counting = true
  switch (operation) {
    case 'revoke':
      await lab.ask('revoke', root, { body: { what: { loan: id } } })
      break
    case 'expire':
      while (!names.includes('after audit loan.ended')) await new Promise(resolve => setTimeout(resolve, 20))
      break
    case 'renew':
      await lab.ask('renew', root, { params: { id }, body: { lifetimeSec: 7200 } })
      break
    case 'derive': {
      const body = { ...target, place: { path: '/mnt' } }
      await lab.ask('derive', root, { params: { id }, body }, { key: 'crash derive' })
      break
    }
    case 'approve': {
      const waiting = [...lab.registry.requests()].find(({ state }) => state === 'waiting')!
      await lab.ask('approve', root, { params: { id: `request-${waiting.id}` }, body: {} })
    }
  }
  // Whoever asked was told.
  process.stdout.write(`done ${operation}\n`)
  counting = false
  await lab.ask('revoke', root, { body: { what: { all: true } } })
  process.stdout.write(`points ${JSON.stringify(names)}\n`)
  await lab[Symbol.asyncDispose]()
}

void main()
