/** What the configuration may say, and what counts where it says nothing. */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DEFAULT_CONFIG, readConfig } from '../../../src/daemon/config.ts'
import { ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'

const owner = process.geteuid!()

test('readConfig() takes what the file says, and the defaults for what it does not', async () => {
  using scratch = new Scratch()
  const read = (text: string) => readConfig(scratch.write('bpftokend.yaml', text), owner)
  assert.deepEqual(await readConfig(join(scratch.path, 'none'), owner), DEFAULT_CONFIG)
  assert.deepEqual(await read(''), DEFAULT_CONFIG)
  const config = await read('limits: { openLoans: 3, connections: 9 }\naudit: { journal: true }\n')
  assert.deepEqual(config, {
    ...DEFAULT_CONFIG,
    limits: { ...DEFAULT_CONFIG.limits, openLoans: 3 },
    connections: { ...DEFAULT_CONFIG.connections, inAll: 9 },
    auditToJournal: true,
  })
  for (const text of [
    'audit: { journal: maybe }',
    'audit: { syslog: true }',
    'limits: { openLoans: 0 }',
    '- a',
  ])
    await assert.rejects(read(text), { code: 'BPFTOKEN_FORMAT' }, text)
})

test('the example of the package says what counts without it', async () => {
  using scratch = new Scratch()
  const example = readFileSync(join(ROOT, 'packaging/bpftokend.yaml'))
  assert.deepEqual(await readConfig(scratch.write('bpftokend.yaml', example), owner), DEFAULT_CONFIG)
})

test('a file that others may write to is refused', async () => {
  using scratch = new Scratch()
  const path = scratch.write('bpftokend.yaml', '')
  chmodSync(path, 0o664)
  await assert.rejects(readConfig(path, owner), { code: 'BPFTOKEN_INPUT' })
  chmodSync(path, 0o644)
  assert.deepEqual(await readConfig(path, owner), DEFAULT_CONFIG)
})
