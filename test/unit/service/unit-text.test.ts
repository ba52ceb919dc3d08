import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseOptions } from '../../../src/nri/options.ts'
import { unitFor } from '../../../src/service/unit-text.ts'

const UNITS = join(__dirname, '../../../packaging/systemd')
const NODE = '/usr/bin/node'

/** The lines in which two texts of as many lines differ. */
function changed(before: string, after: string): string[] {
  const lines = before.split('\n')
  const now = after.split('\n')
  assert.equal(now.length, lines.length)
  return now.filter((line, i) => line !== lines[i])
}

test('unitFor() puts the programs of an installation into each unit, and changes nothing else', () => {
  const cases = {
    'bpftokend.service': {
      main: '/usr/lib/node_modules/bpftoken/dist/daemon/main.js',
      lines: [
        `ExecStart=${NODE} /usr/lib/node_modules/bpftoken/dist/daemon/main.js`,
        `ExecReload=${NODE} /usr/lib/node_modules/bpftoken/dist/cli/main.js reload`,
      ],
    },
    'bpftoken-nri.service': {
      main: '/usr/lib/node_modules/bpftoken/dist/nri/main.js',
      lines: [`ExecStart=${NODE} /usr/lib/node_modules/bpftoken/dist/nri/main.js`],
    },
  }
  for (const [name, { main, lines }] of Object.entries(cases)) {
    const text = readFileSync(join(UNITS, name), 'utf8')
    assert.deepEqual(changed(text, unitFor(text, NODE, main)), lines, name)
    for (const path of ['/opt/a b/main.js', '/opt/%h/main.js', 'main.js'])
      assert.throws(() => unitFor(text, NODE, path), { code: 'BPFTOKEN_INPUT' })
  }
})

test('bpftoken-nri prints its unit when it is told to', () => {
  assert.equal(parseOptions(['--print-unit'], '1').printUnit, true)
  assert.equal(parseOptions([], '1').printUnit, false)
})
