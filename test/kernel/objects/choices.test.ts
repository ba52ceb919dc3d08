/** What a loader may choose: constants, variables, maps by name; and what is refused. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { readValue, type TypedValue } from '../../../src/ebpf/btf/typed-value.ts'
import { type LoadedObject, type LoadOptions, loadObject } from '../../../src/ebpf/load/object.ts'
import { BpfMap, MAP_FLAGS } from '../../../src/ebpf/map.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { privateBpffs } from '../ebpf/fixture.ts'

before(() => traceFds())
after(() => assert.deepEqual(openFds(), []))

function load(options: LoadOptions = {}): Promise<LoadedObject> {
  const file = readFileSync(join(ROOT, 'test/fixtures/typed.bpf.o'))
  return loadObject(parseObject(file, { name: 'typed' }), { token: null, ...options })
}

const XDP_PASS = 2
const packet = { dataIn: new Uint8Array(60) }

test('constants and variables reach the program before it runs', needsTokens(), async () => {
  using object = await load({
    constants: {
      port: 80,
      mode: 'MODE_DROP',
      shift: -7,
      prefix: 'xyz',
      defaults: { peers: [{}, { port: 9 }] },
    },
    variables: { config: { strict: true, high: 77 }, total: 1 },
  })
  using ring = new RingBuffer(object.map('events'))
  assert.equal((await object.program('watch').testRun(packet)).returned, 1 /* XDP_DROP */)
  const { types } = object.spec.btf!
  const event = readValue(types, types.find('event', 'struct')[0]!, ring.read()!) as Record<
    string,
    TypedValue
  >
  // The compiler of the fixtures does not say yet which enums are signed.
  assert.deepEqual([event['mode'], event['tiny'], Number(event['level']) | 0], [7, -7, -2])
  assert.equal(Buffer.from(event['comm'] as Uint8Array).toString(), `xyz${'\0'.repeat(13)}`)
  assert.deepEqual(event['matrix'], [
    [0, 0, 0],
    [0, 0, 77],
  ])
  assert.equal((event['detail'] as { code: number }).code, 9)
})

test('a constant that rules a branch out has the verifier drop it', needsTokens(), async () => {
  using on = await load()
  using off = await load({ constants: { enabled: false } })
  assert.ok(off.program('watch').info().xlatedBytes < on.program('watch').info().xlatedBytes / 2)
  using ring = new RingBuffer(off.map('events'))
  assert.equal((await off.program('watch').testRun(packet)).returned, XDP_PASS)
  assert.equal(ring.read(), undefined)
  await assert.rejects(load({ constants: { enabled: 2 } }), { code: 'BPFTOKEN_INPUT' })
})

test('entries and flags of a map are as chosen, and impossible ones are refused', needsTokens(), async () => {
  using object = await load({
    maps: { flows: { maxEntries: 100, flags: MAP_FLAGS.BPF_F_NO_PREALLOC }, events: { maxEntries: 5000 } },
  })
  const { maxEntries, flags } = object.map('flows').info()
  assert.deepEqual([maxEntries, flags], [100, MAP_FLAGS.BPF_F_NO_PREALLOC])
  assert.equal(object.map('events').maxEntries, 8192)
  for (const choice of [{ maxEntries: 2 ** 32 }, { maxEntries: -1 }, { flags: 0.5 }])
    await assert.rejects(load({ maps: { flows: choice } }), {
      code: 'BPFTOKEN_INPUT',
      message: /0 to 4294967295/,
    })
  await assert.rejects(load({ maps: { '.data': { flags: 0 } } }), { code: 'BPFTOKEN_INPUT' })
})

test(
  'a map that is handed in is used if it is alike, and refused with the difference',
  needsTokens(),
  async () => {
    using first = await load()
    using second = await load({ maps: { flows: { use: first.map('flows') } } })
    assert.equal(second.map('flows'), first.map('flows'))
    await second.program('watch').testRun(packet)
    assert.equal([...first.map('flows').keys()].length, 1)
    const { keyBytes, valueBytes } = first.map('flows')
    const spec = { type: 'hash', keyBytes, valueBytes, maxEntries: 99, token: null } as const
    using other = BpfMap.create(spec)
    await assert.rejects(load({ maps: { flows: { use: other } } }), {
      code: 'BPFTOKEN_CONFLICT',
      message: /maxEntries is 99, not 16/,
    })
    using third = await load({ maps: { flows: { use: other, maxEntries: 99 } } })
    assert.equal(third.map('flows').info().id, other.info().id)
    using wrong = BpfMap.create({ ...spec, valueBytes: 8, maxEntries: 16 })
    await assert.rejects(load({ maps: { flows: { use: wrong } } }), { message: /valueBytes is 8, not \d+/ })
    // The maps that were handed in are still their owner's.
    assert.equal(other.info().maxEntries, 99)
    await assert.rejects(
      load({ constants: { port: 1 }, maps: { '.rodata': { use: first.map('.rodata') } } }),
      {
        code: 'BPFTOKEN_CONFLICT',
        message: /handed in/,
      },
    )
  },
)

test(
  'a map is pinned at a path and found there again, unless variables were set in it',
  needsTokens(),
  async () => {
    using bpffs = privateBpffs()
    const maps = {
      flows: { pin: { path: `${bpffs.path}/shared` } },
      '.data': { pin: { path: `${bpffs.path}/data` } },
    }
    const variables = { config: { port: 5 } }
    {
      using object = await load({ maps, variables, only: ['other'] })
      assert.equal((await object.program('other').testRun(packet)).returned, 5)
    }
    assert.ok(existsSync(`${bpffs.path}/shared`))
    {
      using again = await load({ maps })
      using pinned = BpfMap.open(`${bpffs.path}/shared`)
      assert.equal(again.map('flows').info().id, pinned.info().id)
    }
    await assert.rejects(load({ maps, variables }), { code: 'BPFTOKEN_CONFLICT', message: /pinned already/ })
    await assert.rejects(load({ maps: { flows: { ...maps.flows, maxEntries: 7 } } }), {
      code: 'BPFTOKEN_CONFLICT',
      message: /maxEntries is 16, not 7/,
    })
  },
)

test(
  'a choice is one that was made, whatever else JavaScript has under that name',
  needsTokens(),
  async () => {
    const file = readFileSync(join(ROOT, 'test/fixtures/names.bpf.o'))
    const made = async (options: string): Promise<LoadedObject> =>
      // As JSON has it: a property that is called __proto__.
      await loadObject(parseObject(file, { name: 'names' }), {
        ...{ token: null, only: [], ...(JSON.parse(options) as LoadOptions) },
      })
    {
      using object = await made('{}')
      assert.deepEqual([...object.maps.keys()].sort(), ['__proto__', 'toString'])
      assert.deepEqual(
        [...object.maps.values()].map(map => map.maxEntries),
        [3, 3],
      )
    }
    {
      using object = await made('{"maps":{"__proto__":{"maxEntries":7},"toString":{"maxEntries":8}}}')
      assert.equal(object.map('__proto__').maxEntries, 7)
      assert.equal(object.map('toString').maxEntries, 8)
    }
    {
      using object = await made('{"maps":{"__proto__":{"create":false}}}')
      assert.deepEqual([...object.maps.keys()], ['toString'])
    }
    const all = '["valueOf","avoid","hasOwnProperty"]'
    using object = await made(`{"only":${all},"maps":{"constructor":{"create":true}}}`)
    assert.ok(object.maps.has('constructor'))
    assert.equal(object.programs.size, 3)
  },
)
