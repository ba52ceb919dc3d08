/**
 * Bindings at work: a generated file, with a loaded object; and values of the types of the corpus as
 * bpftool shows them in maps.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { attachProgram } from '../../../src/ebpf/attach/section.ts'
import type { Btf, BtfComposite } from '../../../src/ebpf/btf/btf.ts'
import { BtfObject } from '../../../src/ebpf/btf/object.ts'
import { codecOf, isChar, readValue, type TypedValue, writeValue } from '../../../src/ebpf/btf/typed-value.ts'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { BpfMap } from '../../../src/ebpf/map.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { possibleCpus } from '../../../src/ebpf/per-cpu.ts'
import { objectBindings } from '../../../src/ebpf/typed/bindings.ts'
import { eventTypes } from '../../../src/ebpf/typed/event-types.ts'
import { shapeOf } from '../../../src/ebpf/typed/shape.ts'
import type { TypedPerfEvents } from '../../../src/ebpf/typed/typed-map.ts'
import { bindingOf } from '../../../src/ebpf/typed/typed-object.ts'
import { FormatError, SyscallError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { type Event, Mode, typed } from '../../fixtures/typed.ts'
import { CACHE, needsTokens, ROOT } from '../../helpers/machine.ts'

before(() => traceFds())
after(() => assert.deepEqual(openFds(), []))

const file = readFileSync(join(ROOT, 'test/fixtures/typed.bpf.o'))
const packet = { dataIn: new Uint8Array(60) }

test(
  'a program speaks to its bindings: constants, data, maps and events, all of them checked',
  needsTokens(),
  async () => {
    using object = await typed.load(file, {
      token: null,
      constants: { port: 80, mode: Mode.MODE_DROP, defaults: { peers: [{}, { port: 9 }] } },
      variables: { config: { strict: true, delta: -3 } },
    })
    object.data.config.port = 8080
    object.data.config.high = 4000
    assert.equal((await object.programs.watch.testRun(packet)).returned, 1)
    const event: Event | undefined = object.maps.events.read()
    assert.ok(event !== undefined)
    const { from, level, mac, ...rest } = event
    assert.deepEqual(rest, {
      ...{ bytes: 60n, comm: 'tst', mode: Mode.MODE_DROP, tiny: -1, small: -2, where: 0n },
      ...{
        detail: { code: 9, ratio: new Float32Array(new Uint32Array([9]).buffer)[0] },
        matrix: [
          [0, 0, 0],
          [0, 0, 4000],
        ],
      },
    })
    assert.deepEqual([from.v4, from.port, [...from.v6.subarray(0, 5)]], [0x0100007f, 8080, [127, 0, 0, 1, 0]])
    assert.deepEqual([...mac], [0, 0, 0, 0, 0, 0xfe])
    assert.equal(level | 0, -2)
    assert.equal(object.maps.events.read(), undefined)

    assert.deepEqual(object.maps.flows.get({ source: 1, port: 80 }), event)
    assert.deepEqual([...object.maps.flows], [[{ source: 1, port: 80, kind: 0 }, event]])
    assert.equal(object.maps.flows.get({ source: 2 }), undefined)
    object.maps.flows.set({ source: 2 }, { comm: 'two', detail: { ratio: 0.5 } })
    assert.equal(object.maps.flows.get({ source: 2 })!.detail.ratio, 0.5)
    assert.deepEqual(
      [object.maps.flows.delete({ source: 2 }), object.maps.flows.has({ source: 2 })],
      [true, false],
    )

    const counts = object.maps.counts.get(0)!
    assert.deepEqual([counts.length, counts.reduce((a, b) => a + b, 0n)], [possibleCpus(), 1n])
    object.maps.counts.set(
      1,
      counts.map((_, cpu) => BigInt(cpu)),
    )
    assert.deepEqual(
      object.maps.counts.get(1),
      counts.map((_, cpu) => BigInt(cpu)),
    )

    object.maps.waiting.push({ v4: 1, port: 2 })
    assert.equal(object.maps.waiting.peek()!.port, 2)
    assert.deepEqual([object.maps.waiting.pop()!.v4, object.maps.waiting.pop()], [1, undefined])

    assert.deepEqual([object.data.total, object.data.hidden, object.data.history[3]], [1n << 40n, 1, -3])
    assert.deepEqual([...object.data.history], [0, 0, 0, -3])
    assert.deepEqual(
      [object.data.port, object.data.config.label, object.data.defaults.peers[1]!.port],
      [80, 'start', 9],
    )
    object.data.total = 5n
    await object.programs.watch.testRun(packet)
    assert.equal(object.data.total, 5n + (1n << 40n))
  },
)

test('what is awaited comes typed, and ends with its signal', needsTokens(), async () => {
  using object = await typed.load(file, { token: null })
  const end = new AbortController()
  const seen: bigint[] = []
  await assert.rejects(
    async () => {
      await object.programs.watch.testRun(packet)
      for await (const { bytes } of object.maps.events.records({ signal: end.signal })) {
        seen.push(bytes)
        if (seen.length === 2) end.abort()
        else await object.programs.watch.testRun({ dataIn: new Uint8Array(100) })
      }
    },
    { name: 'AbortError' },
  )
  assert.deepEqual(seen, [60n, 100n])
})

test(
  'constants are read-only, and what is wrong in them is found by the compiler and when it runs',
  needsTokens(),
  async () => {
    using object = await typed.load(file, { token: null })
    const { data } = object
    assert.throws(
      () => {
        // @ts-expect-error: a constant
        data.port = 1
      },
      { code: 'BPFTOKEN_CONFLICT' },
    )
    assert.throws(
      () => {
        // @ts-expect-error: a constant's member
        data.defaults.port = 1
      },
      { code: 'BPFTOKEN_CONFLICT' },
    )
    assert.throws(() => {
      // @ts-expect-error: 64 bits are a bigint
      data.total = '5'
    }, TypeError)
    assert.throws(() => {
      data.config.port = 65536
    }, RangeError)
    // @ts-expect-error: there is no such map
    assert.equal(object.maps.nobody, undefined)
    // @ts-expect-error: no number is text
    await assert.rejects(typed.load(file, { token: null, constants: { port: 'x' } }), {
      code: 'BPFTOKEN_INPUT',
    })
    // @ts-expect-error: there is no such program
    await assert.rejects(typed.load(file, { token: null, only: ['nobody'] }), { code: 'BPFTOKEN_NOT_FOUND' })
    assert.throws(() => object.programs.other, { code: 'BPFTOKEN_NOT_FOUND' })
  },
)

test('an object that was compiled anew, with another layout, is refused', needsTokens(), async () => {
  const spec = typed.parse(file)
  await using_(await loadObject(spec, { token: null }))
  async function using_(loaded: Awaited<ReturnType<typeof loadObject>>): Promise<void> {
    using object = typed.bind(loaded)
    assert.equal(object.data.port, 443)
  }
  const other = readFileSync(join(ROOT, 'test/fixtures/network.bpf.o'))
  await assert.rejects(typed.load(other, { token: null }), {
    code: 'BPFTOKEN_CONFLICT',
    hint: /Write the types again/,
  })
  const changed = {
    ...spec,
    maps: spec.maps.map(map => (map.name === 'flows' ? { ...map, valueTypeId: map.keyTypeId } : map)),
  }
  await assert.rejects(typed.load(changed, { token: null }), { code: 'BPFTOKEN_CONFLICT' })
})

test('records of a perf event array come typed', needsTokens(), async () => {
  const bytes = readFileSync(join(ROOT, 'test/fixtures/modern/events.bpf.o'))
  const spec = parseObject(bytes, { name: 'calls' })
  const events = eventTypes(spec, { calls: 'call' })
  const binding = bindingOf<{
    maps: { calls: TypedPerfEvents<{ pid: number; number: number }> }
    constants: object
    variables: object
    settings: object
    programs: 'called'
  }>({ name: 'calls', shape: shapeOf(spec, events.values()), chars: 'text', events: { calls: 'call' } })
  assert.match(objectBindings(spec, { events: { calls: 'call' } }).text, /calls: TypedPerfEvents<Call>/)
  using object = await binding.load(spec, { token: null })
  object.maps.calls.open({ pid: 0 })
  using _link = attachProgram(object.loaded, 'called')
  // Which asks the library each time.
  assert.ok(process.ppid > 0)
  assert.deepEqual(object.maps.calls.read(), { pid: process.pid, number: 7 })
  assert.equal(object.maps.calls.read(), undefined)
})

/** A number that looks random, the same each time. */
function noise(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 24
  }
}

/** Whether reading loses bits of it: of a bool all but one, of a float's NaN some. */
function isLossy(btf: Btf, id: number): boolean {
  const type = btf.resolve(id)
  if (type?.kind === 'int') return type.bool
  if (type?.kind === 'float') return true
  if (type?.kind === 'array') return isLossy(btf, type.type)
  return (
    (type?.kind === 'struct' || type?.kind === 'union') && type.members.some(one => isLossy(btf, one.type))
  )
}

function hasUnion(btf: Btf, id: number): boolean {
  const type = btf.resolve(id)
  if (type?.kind === 'array') return hasUnion(btf, type.type)
  return (
    type?.kind === 'union' || (type?.kind === 'struct' && type.members.some(one => hasUnion(btf, one.type)))
  )
}

/** Types of values in maps, events and global variables of the corpus, one of each layout. */
function* corpusTypes(): Generator<{ object: string; btf: { bytes: Uint8Array; types: Btf }; id: number }> {
  const seen = new Set<string>()
  for (const object of corpusObjects()) {
    let spec: ReturnType<typeof parseObject>
    try {
      spec = parseObject(readFileSync(corpusFile(object)))
    } catch (error) {
      if (error instanceof FormatError) continue
      throw error
    }
    if (spec.btf === undefined) continue
    const { types } = spec.btf
    for (const kind of ['struct', 'union', 'typedef', 'array', 'enum', 'enum64'] as const)
      for (const id of types.ofKind(kind)) {
        try {
          const codec = codecOf(types, id)
          if (codec.sizeBytes === 0 || codec.sizeBytes > 4096) continue
        } catch {
          continue
        }
        const key = layoutKey(types, id)
        if (seen.has(key)) continue
        seen.add(key)
        yield { object: object.name, btf: spec.btf, id }
      }
  }
}

function layoutKey(types: Btf, id: number): string {
  const type = types.resolve(id)
  if (type?.kind === 'struct' || type?.kind === 'union')
    return `${type.kind} ${type.name} ${type.size} ${type.members.map(m => `${m.name}@${m.bitOff}:${m.bitSize}`).join()}`
  if (type?.kind === 'array') return `array ${type.count} ${layoutKey(types, type.type)}`
  return `${type?.kind} ${type?.name}`
}

test('every type of the corpus comes back as it was written', needsCorpus(), t => {
  let [count, exact] = [0, 0]
  for (const { object, btf, id } of corpusTypes()) {
    const { sizeBytes } = codecOf(btf.types, id)
    const next = noise(id)
    const bytes = Uint8Array.from({ length: sizeBytes }, next)
    const value = readValue(btf.types, id, bytes)
    const again = bytes.slice()
    writeValue(btf.types, id, again, 0, value)
    count++
    // Of members that share their bytes, the last one that is written counts.
    if (isLossy(btf.types, id)) {
      if (!hasUnion(btf.types, id)) assert.deepEqual(readValue(btf.types, id, again), value)
      continue
    }
    exact++
    assert.deepEqual(again, bytes, `${object} type ${id}`)
    // And into zeros: nothing but padding is left out.
    const fresh = new Uint8Array(sizeBytes)
    writeValue(btf.types, id, fresh, 0, value)
    assert.deepEqual(readValue(btf.types, id, fresh), value, `${object} type ${id}`)
  }
  t.diagnostic(`${count} types, ${exact} of them bit by bit`)
  assert.ok(exact > 500)
})

const BPFTOOL = join(CACHE, 'host/usr/sbin/bpftool')

/** What bpftool shows of a value, beside ours: each number, wherever it is nested. */
function differences(types: Btf, id: number, ours: TypedValue, theirs: unknown, path: string): string[] {
  const type = types.resolve(id)
  const say = (): string[] => [`${path}: ${String(ours)}, bpftool ${JSON.stringify(theirs)}`]
  switch (type?.kind) {
    case 'struct':
    case 'union':
      return compositeDifferences(types, type, ours as Record<string, TypedValue>, theirs, path)
    case 'array': {
      if (ours instanceof Uint8Array && isChar(types, type.type) && typeof theirs === 'string') {
        const end = ours.indexOf(0)
        return Buffer.from(end === -1 ? ours : ours.subarray(0, end)).toString('latin1') === theirs
          ? []
          : say()
      }
      if (!Array.isArray(theirs) || theirs.length !== type.count) return say()
      const all = ours instanceof Uint8Array ? [...ours] : (ours as readonly TypedValue[])
      return all.flatMap((one, i) => differences(types, type.type, one, theirs[i], `${path}[${i}]`))
    }
    case 'enum':
    case 'enum64': {
      const names = type.values
        .filter(({ value }) => BigInt(value) === BigInt(ours as bigint))
        .map(({ name }) => name)
      return names.includes(String(theirs)) || sameNumber(ours, theirs, type.size * 8) ? [] : say()
    }
    case 'ptr':
    case 'int': {
      if (typeof ours === 'boolean') return ours === Boolean(theirs) ? [] : say()
      return sameNumber(ours, theirs, types.sizeof(id) * 8) ? [] : say()
    }
    default:
      return []
  }
}

function compositeDifferences(
  types: Btf,
  { members }: BtfComposite,
  ours: Record<string, TypedValue>,
  theirs: unknown,
  path: string,
): string[] {
  const shown = theirs as Record<string, unknown>
  return members.flatMap(({ name, type, bitSize }) => {
    const inner = types.resolve(type)
    if (name === '') {
      if (inner?.kind !== 'struct' && inner?.kind !== 'union') return []
      // JSON has one member without a name where there are several: the last one.
      return members.filter(one => one.name === '').length > 1
        ? []
        : compositeDifferences(types, inner, ours, shown['(anon)'] ?? shown[''] ?? {}, path)
    }
    // Bit fields of enums and bools, and signed ones, are shown as the bits that they are.
    if (bitSize > 0) {
      const value =
        typeof ours[name] === 'boolean' ? BigInt(ours[name] as boolean) : BigInt(ours[name] as bigint)
      return sameNumber(value, shown[name], bitSize)
        ? []
        : [`${path}.${name}: ${value}, bpftool ${String(shown[name])}`]
    }
    return differences(types, type, ours[name]!, shown[name], `${path}.${name}`)
  })
}

function sameNumber(ours: TypedValue, theirs: unknown, bits: number): boolean {
  if (typeof theirs === 'string' && theirs.length === 1 && !/\d/.test(theirs))
    return BigInt(ours as number) === BigInt(theirs.charCodeAt(0))
  try {
    const number = theirs === '(nil)' ? 0n : BigInt(theirs as string)
    return BigInt.asUintN(bits, number) === BigInt.asUintN(bits, BigInt(ours as bigint))
  } catch {
    return false
  }
}

test(
  'values of the types of the corpus are what bpftool shows of them in maps',
  existsSync(BPFTOOL)
    ? { ...needsTokens(), ...needsCorpus() }
    : { skip: '.cache/host has no bpftool: run make debs' },
  async t => {
    const wanted = 400
    const name = `bnd${process.pid}`
    const all: { id: number; object: string; types: Btf; typeId: number; bytes: Uint8Array; map: BpfMap }[] =
      []
    let refused = 0
    try {
      let last: { bytes: Uint8Array; object: BtfObject } | undefined
      for (const { object, btf, id } of corpusTypes()) {
        if (all.length === wanted) break
        if (btf.types.resolve(id)?.kind !== 'struct') continue
        if (last?.bytes !== btf.bytes) {
          last?.object.close()
          last = undefined
          try {
            last = { bytes: btf.bytes, object: await BtfObject.load(btf.bytes, { token: null }) }
          } catch (error) {
            if (!(error instanceof SyscallError)) throw error
            refused++
            continue
          }
        }
        const key = [...btf.types.ofKind('int')].find(one => btf.types.sizeof(one) === 4)
        if (key === undefined) continue
        const { sizeBytes } = codecOf(btf.types, id)
        const bytes = Uint8Array.from({ length: sizeBytes }, noise(id))
        try {
          const map = BpfMap.create({
            ...{ type: 'array', keyBytes: 4, valueBytes: sizeBytes, maxEntries: 1, name, token: null },
            btf: { object: last.object, keyTypeId: key, valueTypeId: id },
          })
          map.update(0, bytes)
          // Locks and the like stay the kernel's own.
          all.push({ id: map.info().id, object, types: btf.types, typeId: id, bytes: map.lookup(0)!, map })
        } catch (error) {
          if (!(error instanceof SyscallError)) throw error
          refused++
        }
      }
      last?.object.close()
      const found: string[] = []
      const dumped = JSON.parse(
        // Numbers beyond 2^53 have to stay what they are.
        execFileSync(BPFTOOL, ['-j', 'map', 'dump', 'name', name], {
          encoding: 'latin1',
          maxBuffer: 1 << 28,
        }).replace(/([[:,])(-?\d{16,})(?=[\],}])/g, '$1"$2"'),
      ) as { id: number; elements: { formatted: { value: unknown } }[] }[]
      const byId = new Map(dumped.map(one => [one.id, one]))
      for (const { id, object, types, typeId, bytes } of all) {
        const shown = byId.get(id)!.elements[0]!.formatted.value
        const value = readValue(types, typeId, bytes)
        found.push(...differences(types, typeId, value, shown, `${object} ${types.name(typeId)}`))
      }
      t.diagnostic(`${all.length} types compared, ${refused} refused by the kernel`)
      assert.deepEqual(found.slice(0, 10), [])
      assert.ok(all.length > 100)
    } finally {
      for (const { map } of all) map.close()
    }
  },
)
