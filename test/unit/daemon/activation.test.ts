import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { activationSockets, takeActivationSockets } from '../../../src/daemon/activation.ts'
import { InputError } from '../../../src/errors.ts'

test('activationSockets() gives the descriptors from 3 on, with their names', () => {
  assert.deepEqual(activationSockets({ LISTEN_FDS: '2', LISTEN_PID: '7', LISTEN_FDNAMES: 'api:other' }, 7), [
    { descriptor: 3, name: 'api' },
    { descriptor: 4, name: 'other' },
  ])
  assert.deepEqual(activationSockets({ LISTEN_FDS: '1', LISTEN_PID: '7' }, 7), [
    { descriptor: 3, name: undefined },
  ])
})

test('activationSockets() gives none where nothing is said, or it is said to another process', () => {
  for (const variables of [
    {},
    { LISTEN_FDS: '1' },
    { LISTEN_PID: '7' },
    { LISTEN_FDS: '1', LISTEN_PID: '8' },
    { LISTEN_FDS: '0', LISTEN_PID: '7' },
  ])
    assert.deepEqual(activationSockets(variables, 7), [])
})

test('activationSockets() refuses what makes no sense', () => {
  for (const variables of [
    { LISTEN_FDS: '17', LISTEN_PID: '7' },
    { LISTEN_FDS: '4294967297', LISTEN_PID: '7' },
    { LISTEN_FDS: '-1', LISTEN_PID: '7' },
    { LISTEN_FDS: '1.5', LISTEN_PID: '7' },
    { LISTEN_FDS: '1', LISTEN_PID: '0' },
    { LISTEN_FDS: '1', LISTEN_PID: '+7' },
    { LISTEN_FDS: '1', LISTEN_PID: '7', LISTEN_FDNAMES: 'a:b' },
    { LISTEN_FDS: '1', LISTEN_PID: '7', LISTEN_FDNAMES: 'a\nb' },
    { LISTEN_FDS: '1', LISTEN_PID: '7', LISTEN_FDNAMES: 'x'.repeat(5000) },
  ])
    assert.throws(() => activationSockets(variables, 7), InputError, JSON.stringify(variables))
})

test('activationSockets() never gives what is no descriptor of ours, whatever is said', () => {
  const text = fc.option(fc.oneof(fc.string(), fc.integer().map(String), fc.constantFrom('1', '2', '7')), {
    nil: undefined,
  })
  fc.assert(
    fc.property(text, text, text, (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES) => {
      let found: ReturnType<typeof activationSockets>
      try {
        found = activationSockets({ LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES }, 7)
      } catch (error) {
        return assert.ok(error instanceof InputError)
      }
      assert.ok(found.length <= 16)
      assert.ok(found.length === 0 || LISTEN_PID === '7')
      for (const [i, { descriptor }] of found.entries()) assert.equal(descriptor, 3 + i)
    }),
  )
})

test('takeActivationSockets() removes what is said, also where it is refused', () => {
  for (const LISTEN_FDS of ['0', 'x']) {
    const variables: Record<string, string | undefined> = {
      LISTEN_FDS,
      LISTEN_PID: '7',
      LISTEN_FDNAMES: 'a',
      LISTEN_PIDFDID: '1',
      PATH: '/bin',
    }
    if (LISTEN_FDS === '0') takeActivationSockets(variables, 7)
    else assert.throws(() => takeActivationSockets(variables, 7), InputError)
    assert.deepEqual(variables, { PATH: '/bin' })
  }
})
