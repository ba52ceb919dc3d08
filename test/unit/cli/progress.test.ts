/** Progress is told of what takes longer than a second, and is silent where that was asked for. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { ROOT } from '../../helpers/machine.ts'

/** What is told on stderr, no terminal, of steps at these milliseconds. */
async function told(times: readonly number[], manner: object, options: object = {}): Promise<string[]> {
  const script = `
    const { speak } = require('${ROOT}/src/cli/output.ts')
    const { Progress } = require('${ROOT}/src/cli/progress.ts')
    speak(${JSON.stringify(manner)})
    let at = 0
    const progress = new Progress({ now: () => at, ...${JSON.stringify(options)} })
    for (const time of ${JSON.stringify(times)}) { at = time; progress.step('at ' + time) }
    progress[Symbol.dispose]()`
  const run = ['--import', 'tsx', '--eval', script]
  const { stdout, stderr } = await promisify(execFile)(process.execPath, run, { cwd: ROOT })
  assert.equal(stdout, '')
  return stderr.split('\n').filter(Boolean)
}

test('Progress: a line per step after a second, at most one a second', async () => {
  assert.deepEqual(await told([0, 500, 999], {}), [])
  assert.deepEqual(await told([0, 1000, 1500, 2500], {}), ['bpftoken: at 1000', 'bpftoken: at 2500'])
  assert.deepEqual(await told([0, 1200], {}, { total: 7 }), ['bpftoken: 2 of 7: at 1200'])
  assert.deepEqual(await told([0, 10], {}, { atOnce: true }), ['bpftoken: at 0'])
})

test('Progress: nothing with --quiet, and nothing beside JSON', async () => {
  assert.deepEqual(await told([0, 2000], { quiet: true }, { atOnce: true }), [])
  assert.deepEqual(await told([0, 2000], { json: true }, { atOnce: true }), [])
})
