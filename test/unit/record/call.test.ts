/** What the recorder's programs write, as it is decoded. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { BtfComposite } from '../../../src/ebpf/btf/btf.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { FLAGS, recorder_call, seenCall } from '../../../src/record/call.ts'
import { bpf_attr_link_create, bpf_attr_map_create, bpf_attr_prog_load } from '../../../src/uapi/bpf.ts'
import { ROOT } from '../../helpers/machine.ts'

const object = parseObject(readFileSync(join(ROOT, 'bpf/recorder.bpf.o')), { name: 'recorder' })
const text = (of: string): Uint8Array => new TextEncoder().encode(of)

test('recorder_call has the size and the fields of the object, and the flags are those of the source', () => {
  const types = object.btf!.types
  const [id] = types.find('recorder_call', 'struct')
  const { members } = types.resolve(id!) as BtfComposite
  assert.equal(recorder_call.size, types.sizeof(id!))
  assert.deepEqual(
    Object.entries(recorder_call.fields).map(([name, { off, size }]) => [name, off, size]),
    members.map(({ name, bitOff, type }) => [name, bitOff / 8, types.sizeof(type)]),
  )
  const source = readFileSync(join(ROOT, 'bpf/recorder.bpf.c'), 'utf8')
  const flags = [...source.matchAll(/\b(RECORDER_\w+) = (\d+)/g)].map(([, name, n]) => [name, Number(n)])
  assert.deepEqual(FLAGS, Object.fromEntries(flags))
})

const call = (values: Parameters<typeof recorder_call.encode>[0]) =>
  seenCall(recorder_call.encode({ flags: FLAGS.RECORDER_ENTERED, comm: text('loader'), ...values }))

test('commands are told apart, each with what it asks a token for', () => {
  const map = call({
    cmd: 0,
    attr: bpf_attr_map_create.encode({ map_type: 27, map_flags: 65536, map_name: text('events') }),
  })
  assert.deepEqual(
    [map.command, map.need, map.withToken, map.name, map.task, map.errno],
    ['map_create', { cmd: 'map_create', mapType: 27 }, true, 'events', 'loader', undefined],
  )
  const load = call({
    cmd: 5,
    result: -13 >>> 0,
    attr: bpf_attr_prog_load.encode({ prog_type: 6, expected_attach_type: 37 }),
  })
  assert.deepEqual(load.need, { cmd: 'prog_load', progType: 6, attachType: 37 })
  assert.deepEqual([load.result, load.errno, load.withToken], [-13, 'EACCES', false])
  const link = call({ cmd: 28, attr: bpf_attr_link_create.encode({ attach_type: 41 }) })
  assert.deepEqual([link.command, link.attachType, link.need], ['link_create', 'perf_event', undefined])
  assert.deepEqual([call({ cmd: 17, text: text('sys_enter') }).name], ['sys_enter'])
})

test('the flag for common attributes is no part of the command', () => {
  const map = call({ cmd: 65536, attr: bpf_attr_map_create.encode({ map_type: 1 }) })
  assert.equal(map.command, 'map_create')
  assert.deepEqual(map.need, { cmd: 'map_create', mapType: 1 })
})

test('a command that is newer than our headers is its number', () => {
  assert.equal(call({ cmd: 60 }).command, '60')
})

test('perf_event_open is told apart from bpf(2), and a call that never got there from one that did', () => {
  const perf = call({ cmd: 1, flags: FLAGS.RECORDER_ENTERED | FLAGS.RECORDER_PERF })
  assert.deepEqual([perf.command, perf.need], ['perf_event_open', undefined])
  assert.equal(perf.reached, true)
  assert.equal(call({ cmd: 0, flags: 0 }).reached, false)
})
