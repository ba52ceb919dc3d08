/** A service that lends nothing: for each route an answer that is as the table of routes says. */
import type { RouteAnswer, RouteName } from '../../../../src/api/routes.ts'
import type { Answered, Call, Service } from '../../../../src/daemon/service.ts'

const AT = '2026-01-02T03:04:05.000Z'
const MASKS = { cmds: '0x1', maps: '0x2', progs: '0x3', attachs: '0x4' }
const ASKER = { pid: 7, uid: 1000, gid: 1000, userNamespace: 'user:[4026532001]' }

export const LOAN: RouteAnswer<'showLoan'> = {
  id: 'loan-1',
  kind: 'delegate',
  state: 'live',
  policy: 'dev',
  policyDigest: 'ab'.repeat(32),
  spec: { askedAt: AT, asker: ASKER, place: { path: '/sys/fs/bpf' }, because: 'subjects[0]' },
  record: {
    madeAt: AT,
    expiresAt: AT,
    capabilities: ['bpf'],
    recipient: { pid: 8, userNamespace: 'user:[4026532001]', mountNamespace: 'mnt:[1]', ownerUid: 1000 },
    mount: { mountId: 5, device: '0:77', path: '/sys/fs/bpf', masks: MASKS, options: ['delegate_cmds=0x1'] },
    delegation: 3,
    boot: 'boot',
  },
  status: {
    mounted: true,
    processes: 1,
    drift: [],
    live: { tokens: 1, programs: 2, maps: 3, mapBytes: 4096 },
    limits: { tokens: 8 },
  },
}

const REQUEST: RouteAnswer<'showRequest'> = {
  id: 'request-1',
  state: 'waiting',
  policy: 'dev',
  askedAt: AT,
  until: AT,
  asker: ASKER,
  recipient: { pid: 8, userNamespace: 'user:[4026532001]' },
  place: { path: '/sys/fs/bpf' },
}

export const EVENT = {
  seq: 41,
  first: AT,
  last: AT,
  count: 2,
  verdict: 'refused',
  point: 'token_create',
  reason: 'revoked',
  uid: 1000,
  pid: 8,
  task: 'counter',
  name: '',
  cgroup: '/user.slice',
}

type Answers = { readonly [N in RouteName]: Answered<N> }

const ANSWERS: Answers = {
  status: {
    status: 200,
    body: {
      version: '0.0.0',
      pid: 1,
      startedAt: AT,
      boot: 'boot',
      guard: { installed: false, why: 'there is none' },
      policies: { loaded: 1, loadedAt: AT, faults: [{ file: 'bad.yaml', message: 'no' }] },
      loans: { live: 1, ended: 0, adopted: 0 },
      requests: { waiting: 1 },
      registry: { schema: 1, writable: true },
      audit: { records: 1, head: 'ab' },
      concerns: [],
    },
  },
  listPolicies: {
    status: 200,
    body: {
      policies: [
        { name: 'dev', digest: 'ab', file: 'dev.yaml', risk: 'low', approval: 'none', allowed: true },
      ],
    },
  },
  showPolicy: {
    status: 200,
    body: { name: 'dev', digest: 'ab', file: 'dev.yaml', document: 'kind: Policy\n' },
  },
  reload: { status: 200, body: { loaded: 1, faults: [] } },
  decide: { status: 200, body: { allowed: false, because: 'no policy names it', at: AT, trace: [] } },
  lend: { status: 201, body: { loan: LOAN, preflight: [], unenforced: [] } },
  listLoans: { status: 200, body: { loans: [LOAN] } },
  showLoan: { status: 200, body: LOAN },
  derive: { status: 201, body: { loan: LOAN, preflight: [], unenforced: [], removed: [] } },
  renew: { status: 200, body: LOAN },
  revoke: { status: 200, body: { dryRun: false, loans: [LOAN], complete: true } },
  listRequests: { status: 200, body: { requests: [REQUEST] } },
  showRequest: { status: 200, body: REQUEST },
  approve: {
    status: 200,
    body: { ...REQUEST, state: 'approved', decided: { at: AT, by: 0 }, loan: 'loan-1' },
  },
  deny: { status: 200, body: { ...REQUEST, state: 'denied', decided: { at: AT, by: 0, comment: 'no' } } },
  withdraw: { status: 200, body: { ...REQUEST, state: 'withdrawn' } },
  events: { status: 200, body: { events: [EVENT], lost: 0, next: 42 } },
  audit: {
    status: 200,
    body: {
      records: [{ seq: 1, batch: 1, at: AT, previous: '', hash: 'ab', event: 'lend.did', facts: {} }],
      next: 2,
    },
  },
  verifyAudit: { status: 200, body: { intact: true, records: 1, from: 1, head: 'ab' } },
  ociHook: { status: 200, body: { loan: LOAN, preflight: [], notes: [] } },
  announceContainers: { status: 200, body: { known: 1 } },
  listContainers: {
    status: 200,
    body: { containers: [{ runtime: 'nri', announcedAt: AT, id: 'abc', name: 'web' }] },
  },
}

export type Asked = { route: RouteName; call: Call; request: unknown }

export interface FakeService extends Service {
  /** What was asked of it. */
  readonly asked: Asked[]
}

/** `instead` answers in place of what is above. */
export function fakeService(
  instead: Partial<Service['handlers']> = {},
  streams: Partial<Service['streams']> = {},
): FakeService {
  const asked: Asked[] = []
  const noted = (route: RouteName, handler: unknown) => (call: Call, request: unknown) => {
    asked.push({ route, call, request })
    return (handler as (call: Call, request: unknown) => unknown)(call, request)
  }
  const handlers = Object.fromEntries(
    Object.entries({
      ...Object.fromEntries(
        Object.entries(ANSWERS).map(([name, body]) => [name, () => Promise.resolve(body)]),
      ),
      ...instead,
    }).map(([name, handler]) => [name, noted(name as RouteName, handler)]),
  )
  const empty = async function* (): AsyncGenerator<never> {}
  return {
    asked,
    handlers: handlers as unknown as Service['handlers'],
    streams: Object.fromEntries(
      Object.entries({ listLoans: empty, listRequests: empty, events: empty, ...streams }).map(
        ([name, open]) => [name, noted(name as RouteName, open)],
      ),
    ) as unknown as Service['streams'],
  }
}
