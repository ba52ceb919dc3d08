import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeEvent } from '../../../src/guard/event.ts'
import { guard_event, POINTS, REASONS } from '../../../src/guard/layout.ts'

const pointOf = (word: string): number => Number(Object.entries(POINTS).find(([, one]) => one === word)![0])
const reasonOf = (word: string): number => Number(Object.entries(REASONS).find(([, one]) => one === word)![0])

function decoded(point: string, type: number, more: Parameters<typeof guard_event.encode>[0] = {}) {
  return decodeEvent(guard_event.encode({ point: pointOf(point), type, cmd: 0xffff_ffff, ...more }), 96n)
}

test('decodeEvent() names the type by what the point is about', () => {
  assert.equal(decoded('map_create', 27).type, 'ringbuf')
  assert.equal(decoded('prog_load', 6).type, 'xdp')
  assert.equal(decoded('token_capable', 39).type, 'bpf')
  assert.equal(decoded('attach', 37).type, 'xdp')
  assert.equal(decoded('protect', 2).type, 'array')
  assert.equal(decoded('protect', 0).type, undefined, 'a pin')
  assert.equal(decoded('open', 6).type, 'xdp')
  assert.equal(decoded('detach', 0).type, 'cgroup_inet_ingress')
  assert.equal(decoded('attach', 0xffff_ffff).type, undefined, 'the command names none')
  for (const point of ['command', 'move', 'receive', 'superblock'])
    assert.equal(decoded(point, 0).type, undefined)
})

test('decodeEvent() leaves out what there is none of', () => {
  const { delegation, cmd, name, holder } = decoded('move', 0)
  assert.deepEqual([delegation, cmd, name, holder], [undefined, undefined, '', undefined])
  assert.equal(decoded('prog_load', 6, { reason: reasonOf('full'), holder: 7n }).holder, 7n)
  const event = decoded('command', 0, { cmd: 13, delegation: 2n, verdict: 1, reason: reasonOf('rights') })
  assert.deepEqual(
    [event.delegation, event.cmd, event.verdict, event.reason],
    [2n, 'prog_get_fd_by_id', 'would-refuse', 'rights'],
  )
})

test('decodeEvent() shows numbers for what is newer than we are, and takes no half record', () => {
  const event = decodeEvent(guard_event.encode({ point: 99, reason: 98 }), 3n * 96n)
  assert.deepEqual([event.seq, event.point, event.reason], [3, '99', '98'])
  assert.throws(() => decodeEvent(new Uint8Array(87), 96n), /87 bytes, not 88/)
})
