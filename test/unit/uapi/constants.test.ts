import assert from 'node:assert/strict'
import { existsSync, constants as node, readFileSync } from 'node:fs'
import { test } from 'node:test'
import * as constants from '../../../src/uapi/constants.ts'

const INCLUDE = '/usr/include'
const HEADERS = [
  'linux/mount.h',
  'linux/fcntl.h',
  'linux/openat2.h',
  'linux/stat.h',
  'linux/sched.h',
  'linux/nsfs.h',
  'linux/magic.h',
  'linux/bpf.h',
  'linux/if_link.h',
  'linux/capability.h',
  'asm-generic/socket.h',
]
const headers = HEADERS.map(name => `${INCLUDE}/${name}`).filter(existsSync)

/** All #defines and enumerators with a plain number, by name. */
function numbersOf(source: string): Map<string, bigint> {
  const found = new Map<string, bigint>()
  const DEFINE = /^#define\s+(\w+)\s+\(?(-?(?:0x[0-9a-f]+|\d+))U?L*(?:\s*<<\s*(\d+))?\)?\s*(?:\/\*.*)?$/gim
  for (const [, name, digits, shift] of source.matchAll(DEFINE)) found.set(name!, value(digits!, shift))
  for (const [, name, digits] of source.matchAll(/^\t(\w+)\s*=\s*(\d+),/gm)) found.set(name!, value(digits!))
  return found
}

function value(digits: string, shift = '0'): bigint {
  const octal = /^0\d/.test(digits) ? `0o${digits}` : digits
  const number = octal.startsWith('-') ? -BigInt(octal.slice(1)) : BigInt(octal)
  return number << BigInt(shift)
}

test(
  'constants equal those of the installed kernel headers',
  headers.length === 0 ? { skip: 'no headers' } : {},
  t => {
    const theirs = numbersOf(headers.map(path => readFileSync(path, 'utf8')).join('\n'))
    const { CAPABILITIES, ...plain } = constants
    let compared = 0
    for (const [name, ours] of Object.entries({ ...plain, ...CAPABILITIES })) {
      const expected = theirs.get(name)
      if (expected === undefined) continue
      assert.equal(BigInt(ours), expected, name)
      compared++
    }
    t.diagnostic(`${compared} compared`)
    assert.ok(compared > 70, `only ${compared} of our constants are in the headers`)
  },
)

test('constants of open(2) are those of this architecture', () => {
  const { O_RDONLY, O_RDWR, O_DIRECTORY } = constants
  const ours = { O_RDONLY, O_RDWR, O_DIRECTORY }
  for (const [name, value] of Object.entries(ours)) assert.equal(value, node[name as keyof typeof node], name)
})

test('CAPABILITIES numbers all 41 without a gap', () => {
  assert.deepEqual(
    Object.values(constants.CAPABILITIES),
    Array.from({ length: 41 }, (_, i) => i),
  )
})
