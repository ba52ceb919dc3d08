/**
 * parseObject(): what it reads, and that bytes of any kind give a spec or a FormatError and nothing
 * else.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { parseObject } from '../../../../src/ebpf/object/spec.ts'
import { FormatError } from '../../../../src/errors.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../../corpus/corpus.ts'
import { xdpObject } from '../../../helpers/xdp-object.ts'

/** Whether these bytes are an object; anything but a FormatError fails the test. */
function isObject(bytes: Uint8Array, what: string): boolean {
  try {
    parseObject(bytes)
    return true
  } catch (error) {
    assert.ok(error instanceof FormatError, `${what}: ${(error as Error).stack}`)
    return false
  }
}

/** The same numbers in each run (Park and Miller), so that a failure comes again. */
function* numbers(seed: number): Generator<number, never> {
  let n = seed
  for (;;) {
    n = (n * 48271) % 0x7fff_ffff
    yield n
  }
}

test('parseObject() reads the smallest object', () => {
  const spec = parseObject(xdpObject(), { name: 'smallest' })
  assert.equal(spec.license, 'GPL')
  assert.equal(spec.littleEndian, true)
  assert.deepEqual(spec.maps, [])
  assert.deepEqual(
    spec.programs.map(({ name, section, rule, autoload }) => [
      name,
      section,
      rule?.type,
      rule?.attachType,
      autoload,
    ]),
    [['let_pass', 'xdp', 'xdp', 'xdp', true]],
  )
})

test('parseObject() refuses what is no ELF, no BPF, or no relocatable file', () => {
  const changed = (off: number, value: number) => {
    const bytes = xdpObject()
    bytes[off] = value
    return bytes
  }
  assert.ok(isObject(xdpObject(), 'unchanged'))
  assert.equal(isObject(new Uint8Array(), 'nothing'), false)
  assert.equal(isObject(readFileSync(process.execPath).subarray(0, 4096), 'an executable'), false)
  assert.equal(isObject(changed(0, 0), 'magic'), false)
  assert.equal(isObject(changed(16, 2), 'an executable type'), false)
  assert.equal(isObject(changed(18, 62), 'x86-64'), false)
})

test('parseObject() of a cut or changed object returns or throws FormatError', () => {
  const whole = xdpObject()
  for (let length = 0; length < whole.length; length++)
    isObject(whole.subarray(0, length), `cut to ${length}`)
  for (let at = 0; at < whole.length; at++)
    for (const value of [0, 1, 0x7f, 0x80, 0xff]) {
      const bytes = Buffer.from(whole)
      bytes[at] = value
      isObject(bytes, `byte ${at} = ${value}`)
    }
})

test(
  'parseObject() takes the objects of Debian packages, or refuses them with FormatError',
  needsCorpus(),
  t => {
    const objects = corpusObjects()
    let read = 0
    for (const object of objects) if (isObject(readFileSync(corpusFile(object)), object.name)) read++
    t.diagnostic(`${read} of ${objects.length} read`)
    // Refused are custom sections, declarations without BTF and maps of other loaders: 45 of 544
    // when this was written.
    assert.ok(read / objects.length > 0.9)
  },
)

test(
  'parseObject() of changed objects of Debian packages returns or throws FormatError',
  needsCorpus(),
  () => {
    const random = numbers(20261124)
    for (const object of corpusObjects().filter((_, i) => i % 9 === 0)) {
      const whole = readFileSync(corpusFile(object))
      for (let round = 0; round < 12; round++) {
        const bytes = Buffer.from(whole)
        for (let change = 0; change < 4; change++)
          bytes[random.next().value % bytes.length] = random.next().value & 0xff
        isObject(round % 3 === 0 ? bytes.subarray(0, random.next().value % bytes.length) : bytes, object.name)
      }
    }
  },
)
