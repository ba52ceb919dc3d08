/** Opens what the daemon keeps, and the service upon it; closes it again in the other order. */
import { existsSync } from 'node:fs'
import { GUARD_DIRECTORY } from '../guard/directory.ts'
import type { Guard } from '../guard/guard.ts'
import { loadVocabulary } from '../lending/policy-text.ts'
import { Audit } from '../registry/audit.ts'
import { EventStore } from '../registry/event-store.ts'
import { Registry, recoverRegistry } from '../registry/registry.ts'
import type { Log } from '../service/log.ts'
import { AuditForward } from './audit-forward.ts'
import { bootId } from './clock.ts'
import type { Config } from './config.ts'
import { createService, type RunningService, type ServiceOptions } from './create-service.ts'
import type { Meter } from './meter.ts'
import { Names } from './names.ts'
import { PolicyFiles } from './policies.ts'

export interface ServiceSettings {
  readonly stateDirectory: string
  readonly policyDirectory: string
  readonly launcher: string
  readonly limits: Config['limits']
  readonly auditToJournal: boolean
  /** Sets a registry aside that cannot be read. */
  readonly recover: boolean
  readonly version: string
  readonly log: Log
  readonly counters: Meter
  readonly policiesRead?: ServiceOptions['policiesRead']
}

export interface OpenedService {
  readonly service: RunningService
  readonly names: Names
  /** Nothing that is lent ends. */
  close(): Promise<void>
}

export async function openService(settings: ServiceSettings): Promise<OpenedService> {
  const { stateDirectory, policyDirectory, launcher, limits, recover, version, log, counters, policiesRead } =
    settings
  // Whatever fails, what was opened before it is closed.
  const closers: (() => Promise<void> | void)[] = []
  const close = async (): Promise<void> => {
    for (let one = closers.pop(); one !== undefined; one = closers.pop()) await one()
  }
  const opened = <T extends { close(): Promise<void> }>(what: T): T => {
    closers.push(() => what.close())
    return what
  }
  try {
    if (recover) {
      const { aside, nextLoan } = await recoverRegistry(stateDirectory)
      log.warn({ aside, nextLoan }, 'the registry was set aside, and a new one begun')
    }
    const registry = opened(await Registry.open(stateDirectory, { boot: bootId() }))
    if (registry.torn !== undefined)
      log.warn({ torn: registry.torn }, 'the end of the registry was not finished, and was cut off')
    const audit = opened(await Audit.open(stateDirectory))
    const forward = settings.auditToJournal ? new AuditForward(audit) : undefined
    if (forward !== undefined) closers.push(() => forward[Symbol.dispose]())
    const events = opened(await EventStore.open(stateDirectory))
    const { guard, noGuard } = await openGuard(log)
    if (guard !== undefined) closers.push(() => guard[Symbol.dispose]())
    const vocabulary = await loadVocabulary()
    const policies = new PolicyFiles(policyDirectory, vocabulary)
    const names = new Names()
    const service = createService({
      ...{ version, registry, audit, events, guard, noGuard, policies, names, vocabulary },
      ...{ limits, log, counters, policiesRead, forward, launcher },
    })
    closers.push(() => service.stop())
    await service.reload()
    await service.start()
    return { service, names, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Without a guard the daemon lends what needs none, and says why there is none. */
async function openGuard(log: Log): Promise<{ guard?: Guard; noGuard?: string }> {
  if (!existsSync(GUARD_DIRECTORY)) return { noGuard: 'no guard is installed' }
  const { Guard } = await import('../guard/guard.ts')
  try {
    const guard = Guard.openOrNull()
    return guard === undefined ? { noGuard: 'half of a guard is installed' } : { guard }
  } catch (error) {
    log.error({ error }, 'the guard cannot be used')
    return { noGuard: (error as Error).message }
  }
}
