/** Documents about what is lent, to whom. Loads zod. */
import { z } from 'zod'
import { account, capability, count, flag, id, masks, pid, strict, text, texts, words } from './basics.ts'

export const doctor = strict({
  works: flag,
  facts: z.array(strict({ name: text, ok: flag, required: flag, detail: text, remedy: text.optional() })),
})

const target = strict({
  pid,
  userNamespace: text,
  mountNamespace: text,
  rootUid: account.optional(),
  rootGid: account.optional(),
  unmappedUid: account.optional(),
  ownerUid: account,
})

const does = <Name extends string, Shape extends z.core.$ZodLooseShape>(name: Name, shape: Shape) =>
  strict({ do: z.literal(name), ...shape })
/** The steps of a loan, before they are done. */
export const actions = z.array(
  z.discriminatedUnion('do', [
    does('openDirectory', { path: text }),
    does('enterRoot', { path: text }),
    does('makeDirectory', { path: text }),
    does('openContext', { type: z.literal('bpf') }),
    does('refuseOccupied', { path: text }),
    does('takeContext', { fd: count }),
    does('proveContext', { mapped: account.optional(), unmapped: account.optional() }),
    does('setOption', { key: text, value: text }),
    does('markDelegatable', {}),
    does('createSuperblock', {}),
    does('makeMount', { attributes: z.array(z.enum(['nosuid', 'nodev', 'noexec'])).readonly() }),
    does('refuseMoved', {}),
    does('attachMount', { path: text }),
    does('reachMount', { path: text }),
    does('confirm', {}),
    does('pause', {}),
  ]),
)

/** What may keep the process from using the loan. */
const preflight = z.array(
  strict({
    code: z.enum(['capability', 'kept-until-exec', 'seccomp']),
    certain: flag,
    capability: capability.optional(),
    what: text,
    remedy: text,
  }),
)
const record = { anySubject: z.literal(true).optional() }

export const runDryRun = strict({
  user: strict({ name: text, uid: account, gid: account, home: text, shell: text }),
  network: z.enum(['own', 'host']),
  capabilities: texts,
  command: texts,
  actions,
  ...record,
})

export const delegateDryRun = strict({ target, actions, preflight, ...record })

const mount = { mountId: count, device: text, path: text, masks, options: texts }
const made = { target, id: id.optional(), preflight, ...record }
const loans = <Shape extends z.core.$ZodLooseShape>(also: Shape) =>
  z.union([
    strict({ ...made, delegation: strict(mount), ...also }),
    strict({ ...made, contextFd: count, ...also }),
  ])

export const delegate = loans({})
export const derive = loans({
  parent: id,
  removed: z.array(strict({ path: text, what: text, why: text })),
})

export const instance = {
  ...mount,
  mountNamespace: text,
  userNamespace: text,
  ownerUid: account,
  pids: z.array(pid),
  command: text,
  covered: flag,
}

export const undelegate = strict({
  target,
  unmounted: strict({
    ...mount,
    covers: count,
    copies: strict({ unmounted: count, left: z.array(strict(instance)) }),
    revoked: z.array(id),
  }),
})

export const ls = z.array(strict({ ...instance, delegations: z.array(id), words }))

export const confine = strict({ id, cgroup: text, policy: text })
export const unconfine = strict({ unconfined: id })
