import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { announceBody } from '../../../src/api/container.ts'
import { FACTS_BYTES } from '../../../src/api/container-words.ts'
import { UnreachableError } from '../../../src/errors.ts'
import { Announcer, type Daemon } from '../../../src/nri/announcer.ts'
import { factsOf } from '../../../src/nri/facts.ts'
import { type Announcement, announcementsOf, Inventory } from '../../../src/nri/inventory.ts'
import {
  ConfigureResponseSchema,
  ContainerSchema,
  CreateContainerRequestSchema,
  CreateContainerResponseSchema,
  Event,
  PodSandboxSchema,
  StateChangeEventSchema,
  SynchronizeRequestSchema,
  SynchronizeResponseSchema,
} from '../../../src/nri/messages/nri_pb.ts'
import { Plugin, type Tale } from '../../../src/nri/plugin.ts'
import { requestOf } from '../../../src/nri/request.ts'
import { eventually } from '../../helpers/eventually.ts'

const POLICY = 'bpftoken.dev/policy'
const HOOK = { path: '/opt/hook', args: ['--socket', '/s'], timeoutSeconds: 15 }

/** A daemon that remembers as the real one does, and answers when it may. */
class RememberingDaemon {
  known = new Map<string, unknown>()
  startedAt = 'first'
  requests: Announcement[] = []
  fails: Error | undefined
  hangs = false

  readonly daemon = {
    status: async () => ({ startedAt: this.startedAt }),
    announceContainers: async ({ body }: { body: Announcement }, { signal }: { signal: AbortSignal }) => {
      if (this.hangs)
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('ended'))))
      if (this.fails !== undefined) throw this.fails
      // What the daemon would refuse must not be sent.
      const { whole, containers, gone = [] } = announceBody.parse(body)
      this.requests.push(body)
      if (whole) this.known.clear()
      for (const one of containers) this.known.set(one.id, one)
      for (const id of gone) this.known.delete(id)
      return { known: this.known.size }
    },
  } as unknown as Daemon
}

interface Options {
  answerMs?: number
  madeMs?: number
  imageDigest?: (containerId: string) => Promise<string | undefined>
}

function setup(options: Options = {}) {
  const told: unknown[][] = []
  const tale = new Proxy({} as Tale, {
    get:
      (_, name) =>
      (...facts: unknown[]) =>
        void told.push([name, ...facts]),
  })
  const remembering = new RememberingDaemon()
  const inventory = new Inventory()
  const announcer = new Announcer(inventory, remembering.daemon, {
    all: count => void told.push(['all', count]),
    not: error => void told.push(['not', error.message]),
  })
  const imageDigest = options.imageDigest ?? (async () => undefined)
  const parts = { inventory, announcer, hook: HOOK, tale, answerMs: 60_000, ...options, imageDigest }
  const plugin = new Plugin(parts)
  const create_ = async (
    pod: MessageInitShape<typeof PodSandboxSchema>,
    container: MessageInitShape<typeof ContainerSchema>,
  ) => {
    const request = create(CreateContainerRequestSchema, { pod, container })
    const answer = await plugin.answer('CreateContainer', toBinary(CreateContainerRequestSchema, request))
    return { answer, response: fromBinary(CreateContainerResponseSchema, answer) }
  }
  const change = (event: Event, container: MessageInitShape<typeof ContainerSchema>) =>
    plugin.answer(
      'StateChange',
      toBinary(StateChangeEventSchema, create(StateChangeEventSchema, { event, container })),
    )
  const end = async (): Promise<void> => {
    plugin[Symbol.dispose]()
    await announcer[Symbol.asyncDispose]()
  }
  return { ...remembering, remembering, told, plugin, inventory, create: create_, change, end }
}

const POD = { id: 'p1', name: 'web', namespace: 'shop', uid: 'u-1', labels: { app: 'web' } }

suite('the plugin of NRI', () => {
  test('subscribes to what it needs, and to nothing else', async () => {
    const nri = setup()
    const answer = await nri.plugin.answer('Configure', new Uint8Array())
    // Bits of CREATE_CONTAINER (4), POST_CREATE_CONTAINER (5), REMOVE_CONTAINER (11).
    assert.equal(fromBinary(ConfigureResponseSchema, answer).events, 0b100_0001_1000)
    await nri.end()
  })

  test('a container that asks by its pod is told of before the answer, and gets hook, variable and annotation', async () => {
    const nri = setup()
    const { response } = await nri.create(
      { ...POD, annotations: { [POLICY]: 'xdp', other: 'x' } },
      { id: 'c1', name: 'app' },
    )
    assert.deepEqual(nri.known.get('c1'), {
      id: 'c1',
      name: 'app',
      pod: {
        name: 'web',
        namespace: 'shop',
        uid: 'u-1',
        labels: { app: 'web' },
        annotations: { [POLICY]: 'xdp' },
      },
    })
    const { annotations, env, hooks, mounts, linux } = response.adjust!
    assert.deepEqual(annotations, { [POLICY]: 'xdp' })
    assert.deepEqual(
      env.map(({ key, value }) => [key, value]),
      [['LIBBPF_BPF_TOKEN_PATH', '/sys/fs/bpf']],
    )
    const [hook, ...more] = hooks!.createRuntime
    assert.deepEqual(
      [hook!.path, hook!.args, hook!.timeout?.value],
      ['/opt/hook', ['hook', '--socket', '/s'], 15n],
    )
    assert.deepEqual([more.length, mounts.length, linux], [0, 0, undefined])
    await nri.end()
  })

  test('a variable of its own stays', async () => {
    const nri = setup()
    const { response } = await nri.create(
      { ...POD, annotations: { [POLICY]: 'xdp' } },
      { id: 'c1', name: 'app', env: ['LIBBPF_BPF_TOKEN_PATH='] },
    )
    assert.equal(response.adjust!.env.length, 0)
    await nri.end()
  })

  test('a container that does not ask is answered with nothing, also while the daemon hangs', async () => {
    const nri = setup()
    nri.remembering.hangs = true
    const { answer } = await nri.create(POD, { id: 'c1', name: 'app', annotations: { bpftoken: 'xdp' } })
    assert.equal(answer.length, 0)
    assert.equal(nri.inventory.size, 1)
    await nri.end()
  })

  test('one that asks is refused while the daemon hangs, fails or is away, and made when it is back', async () => {
    const nri = setup({ answerMs: 30 })
    const asks = { ...POD, annotations: { [POLICY]: 'xdp' } }
    nri.remembering.hangs = true
    await assert.rejects(nri.create(asks, { id: 'c1', name: 'app' }), {
      code: 9,
      message: /did not answer within 30 ms/,
    })
    await nri.end()
    const other = setup()
    other.remembering.fails = new UnreachableError('No daemon answers')
    await assert.rejects(
      other.create(asks, { id: 'c1', name: 'app' }),
      /lends nothing to container app: No daemon answers/,
    )
    assert.equal(other.inventory.size, 0)
    other.remembering.fails = undefined
    await other.create(asks, { id: 'c2', name: 'app' })
    assert.deepEqual([...other.known.keys()], ['c2'])
    // It was away: it is told of all, and not of what is new alone.
    assert.equal(other.requests[0]!.whole, true)
    await other.end()
  })

  test('what means nothing, or two things, is refused by name', async () => {
    const nri = setup()
    for (const [pod, own, why] of [
      [{ 'bpftoken.dev/polcy': 'xdp' }, {}, /bpftoken\.dev\/polcy means nothing/],
      [{ 'bpftoken.dev/preflight': 'warn' }, {}, /bpftoken\.dev\/policy is missing/],
      [{ [POLICY]: 'a' }, { [POLICY]: 'b' }, /different things/],
      [{ [POLICY]: 'x'.repeat(300) }, {}, /more than 253/],
    ] as const)
      await assert.rejects(
        nri.create({ ...POD, annotations: pod }, { id: 'c1', name: 'app', annotations: own }),
        { code: 9, message: why },
      )
    assert.equal(nri.inventory.size, 0)
    // The twin: both say the same.
    const same = { [POLICY]: 'a', 'bpftoken.dev/preflight': 'warn' }
    await nri.create({ ...POD, annotations: same }, { id: 'c1', name: 'app', annotations: same })
    await nri.end()
  })

  test('Synchronize in parts tells of all that there is, and forgets what is not', async () => {
    const nri = setup()
    await nri.create({ ...POD, annotations: { [POLICY]: 'xdp' } }, { id: 'old', name: 'app' })
    const part = async (id: string, more: boolean) => {
      const request = create(SynchronizeRequestSchema, {
        ...{ pods: id === 'c1' ? [POD] : [], more },
        containers: [{ id, name: id, podSandboxId: 'p1' }],
      })
      const answer = await nri.plugin.answer('Synchronize', toBinary(SynchronizeRequestSchema, request))
      return fromBinary(SynchronizeResponseSchema, answer).more
    }
    assert.deepEqual([await part('c1', true), await part('c2', false)], [true, false])
    await eventually(() => nri.known.has('c2'), 'the daemon is told')
    assert.deepEqual([...nri.known.keys()].sort(), ['c1', 'c2'])
    assert.equal((nri.known.get('c2') as { pod: { name: string } }).pod.name, 'web')
    await nri.end()
  })

  test('of a list without end so many are remembered; the runtime is not refused, and who asks is', async () => {
    const nri = setup()
    const containers = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({ id: `c${from + i}`, podSandboxId: 'p1' }))
    const pods = (count: number) => Array.from({ length: count }, (_, i) => ({ id: `other-${i}` }))
    const part = async (request: MessageInitShape<typeof SynchronizeRequestSchema>) =>
      await nri.plugin.answer(
        'Synchronize',
        toBinary(SynchronizeRequestSchema, create(SynchronizeRequestSchema, request)),
      )
    const cuts = () => nri.told.filter(([what]) => what === 'cut').map(([, facts]) => facts)
    const asks = { ...POD, annotations: { [POLICY]: 'xdp' } }
    // More than an engine of JavaScript takes as arguments of one call.
    await part({ pods: [POD], containers: containers(0, 200_000), more: true })
    await part({ containers: containers(200_000, 10_000) })
    assert.equal(nri.inventory.size, 10_000)
    assert.deepEqual(cuts(), [{ bound: 10_000, pods: 0, containers: 200_000 }])
    await assert.rejects(nri.create(asks, { id: 'asks' }), /too many containers/)
    assert.equal((await nri.create(POD, { id: 'silent' })).answer.length, 0)
    // Without its pod it would be told of as one that root made.
    await part({ pods: [...pods(10_000), POD], containers: [...containers(0, 2), { id: 'alone' }] })
    assert.deepEqual([nri.inventory.size, cuts().length], [1, 2])
    await part({ pods: [POD, ...pods(9999)], containers: containers(0, 9999) })
    assert.deepEqual([nri.inventory.size, cuts().length], [9999, 2])
    await nri.create(asks, { id: 'asks' })
    assert.ok(nri.known.has('asks'))
    await nri.end()
  })

  test('a removed container is gone, and one that is never made, too, which is told', async () => {
    const nri = setup({ madeMs: 20 })
    const asks = { ...POD, annotations: { [POLICY]: 'xdp' } }
    await nri.create(asks, { id: 'c1', name: 'app' })
    await nri.change(Event.POST_CREATE_CONTAINER, {
      id: 'c1',
      hooks: { createRuntime: [{ path: HOOK.path }] },
    })
    await nri.create(asks, { id: 'c2', name: 'app' })
    await eventually(() => !nri.known.has('c2'), 'what was not made is forgotten')
    assert.ok(nri.known.has('c1'))
    assert.deepEqual(
      nri.told.filter(([what]) => what === 'ignored'),
      [['ignored', { containerId: 'c2', container: 'app', pod: 'web', namespace: 'shop', made: false }]],
    )
    await nri.change(Event.REMOVE_CONTAINER, { id: 'c1' })
    await eventually(() => nri.known.size === 0, 'what was removed is forgotten')
    await nri.end()
  })

  test('a runtime that makes it without the hook is told of', async () => {
    const nri = setup()
    await nri.create({ ...POD, annotations: { [POLICY]: 'xdp' } }, { id: 'c1', name: 'app' })
    await nri.change(Event.POST_CREATE_CONTAINER, { id: 'c1', name: 'app' })
    assert.equal(nri.told.filter(([what]) => what === 'ignored').length, 1)
    await nri.end()
  })

  const made = { id: 'c1', name: 'app', hooks: { createRuntime: [{ path: HOOK.path }] } }
  const DIGEST = `sha256:${'a'.repeat(64)}`

  test('the digest of the image is told before the runtime is answered that it was made', async () => {
    const asked: string[] = []
    const nri = setup({
      imageDigest: async id => {
        asked.push(id)
        return DIGEST
      },
    })
    await nri.create({ ...POD, annotations: { [POLICY]: 'xdp' } }, { id: 'c1', name: 'app' })
    assert.equal((nri.known.get('c1') as { imageDigest?: string }).imageDigest, undefined)
    await nri.change(Event.POST_CREATE_CONTAINER, made)
    assert.equal((nri.known.get('c1') as { imageDigest?: string }).imageDigest, DIGEST)
    // Nobody waits for those that do not ask.
    await nri.create(POD, { id: 'c2', name: 'app' })
    await nri.change(Event.POST_CREATE_CONTAINER, { id: 'c2', name: 'app' })
    assert.deepEqual(asked, ['c1'])
    await nri.end()
  })

  test('a runtime that does not say which digest is no reason to hold a container back', async () => {
    for (const imageDigest of [
      async () => undefined,
      async () => Promise.reject(new UnreachableError('nobody is there')),
    ]) {
      const nri = setup({ imageDigest })
      await nri.create({ ...POD, annotations: { [POLICY]: 'xdp' } }, { id: 'c1', name: 'app' })
      await nri.change(Event.POST_CREATE_CONTAINER, made)
      assert.equal((nri.known.get('c1') as { imageDigest?: string }).imageDigest, undefined)
      assert.equal(nri.told.filter(([what]) => what === 'noDigest').length, 1)
      await nri.end()
    }
  })

  test('methods that there are not are refused', async () => {
    const nri = setup()
    await assert.rejects(nri.plugin.answer('UpdatePodSandbox', new Uint8Array()), { code: 12 })
    await nri.end()
  })
})

suite('what the daemon is told', () => {
  test('a digest that makes the facts too long is left out', () => {
    const inventory = new Inventory()
    const digest = `sha256:${'a'.repeat(64)}`
    const facts = (bytes: number) => ({ id: 'c1', name: 'x'.repeat(bytes) })
    inventory.add(facts(FACTS_BYTES - 50))
    assert.equal(inventory.addDigest('c1', digest), false)
    inventory.add(facts(FACTS_BYTES - 200))
    assert.equal(inventory.addDigest('c1', digest), true)
    assert.equal(inventory.addDigest('c2', digest), false)
  })

  test('long labels and names are left out, and what asks is still known', () => {
    const pod = create(PodSandboxSchema, {
      ...POD,
      labels: { long: 'x'.repeat(5000) },
      annotations: { [POLICY]: 'xdp' },
    })
    const facts = factsOf(pod, create(ContainerSchema, { id: 'c1', name: 'y'.repeat(5000) }))!
    assert.deepEqual(facts, {
      id: 'c1',
      pod: { name: 'web', namespace: 'shop', uid: 'u-1', annotations: { [POLICY]: 'xdp' } },
    })
    assert.deepEqual(requestOf({ pod: { annotations: facts.pod!.annotations! } }), { [POLICY]: 'xdp' })
    // A pod of which a name is not known is not matched by what is left.
    const odd = create(PodSandboxSchema, { ...POD, namespace: 'n'.repeat(5000) })
    assert.deepEqual(factsOf(odd, create(ContainerSchema, { id: 'c1' })), { id: 'c1' })
    assert.equal(factsOf(pod, create(ContainerSchema, { id: 'c 1' })), undefined)
    const labels = Object.fromEntries(Array.from({ length: 900 }, (_, i) => [`label-${i}`, 'x'.repeat(100)]))
    const many = create(PodSandboxSchema, { ...POD, labels })
    assert.deepEqual(factsOf(many, create(ContainerSchema, { id: 'c1' })), {
      id: 'c1',
      pod: { name: 'web', namespace: 'shop', uid: 'u-1' },
    })
  })

  test('a pod with more of our annotations than the daemon takes does not keep it from the others', () => {
    const facts = (count: number) => {
      const annotations = Object.fromEntries(
        Array.from({ length: count }, (_, i) => [`bpftoken.dev/${i}`, '']),
      )
      const pod = create(PodSandboxSchema, { ...POD, annotations })
      return factsOf(pod, create(ContainerSchema, { id: 'c1' }))!
    }
    const taken = (count: number): boolean =>
      announceBody.safeParse({ runtime: 'nri', whole: true, containers: [facts(count)] }).success
    assert.ok(taken(1001))
    assert.equal(facts(1001).pod!.annotations, undefined)
    assert.ok(taken(1000))
    assert.equal(Object.keys(facts(1000).pod!.annotations!).length, 1000)
  })

  test('what whoever made the image, or the pod, writes is not taken for what the runtime says', () => {
    const labels = { team: 'network' }
    const container = create(ContainerSchema, { id: 'c1', labels })
    assert.deepEqual(factsOf(undefined, container), { id: 'c1' })
    const lies = { 'io.kubernetes.cri.image-name': 'localhost/trusted:1' }
    const pod = create(PodSandboxSchema, { ...POD, annotations: lies })
    const passedOn = create(ContainerSchema, { id: 'c1', annotations: lies })
    assert.equal(factsOf(pod, passedOn)!.image, undefined)
    assert.equal(factsOf(create(PodSandboxSchema, POD), passedOn)!.image, 'localhost/trusted:1')
  })

  test("the image is the runtime's word", () => {
    const container = {
      id: 'c1',
      annotations: { 'io.kubernetes.cri.image-name': 'localhost/a:1', other: 'x' },
    }
    assert.deepEqual(factsOf(undefined, create(ContainerSchema, container)), {
      id: 'c1',
      image: 'localhost/a:1',
    })
  })

  test('announcements are as long as the daemon takes, and only the first says that these are all', () => {
    const changes = new Map(
      Array.from({ length: 100 }, (_, i) => [`c${i}`, { id: `c${i}`, name: 'x'.repeat(4000) }] as const),
    )
    const parts = announcementsOf(changes, true)
    assert.deepEqual(
      parts.map(({ whole }) => whole),
      [true, ...parts.slice(1).map(() => false)],
    )
    assert.equal(parts.flatMap(({ containers }) => containers).length, 100)
    for (const part of parts) assert.ok(JSON.stringify(part).length < 300 * 1024)
    assert.deepEqual(announcementsOf(new Map(), true), [
      { runtime: 'nri', whole: true, containers: [], gone: [] },
    ])
    assert.deepEqual(announcementsOf(new Map(), false), [])
  })

  test('another daemon is told of all', async () => {
    const remembering = new RememberingDaemon()
    const inventory = new Inventory()
    const counts: number[] = []
    const announcer = new Announcer(
      inventory,
      remembering.daemon,
      {
        all: count => void counts.push(count),
        not: () => {},
      },
      10,
    )
    inventory.add({ id: 'c1' })
    await announcer.now(60_000)
    remembering.known.clear()
    remembering.startedAt = 'second'
    await eventually(() => remembering.known.has('c1'), 'the second daemon is told')
    assert.deepEqual(counts, [1, 1])
    await announcer[Symbol.asyncDispose]()
  })
})
