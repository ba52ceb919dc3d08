/**
 * The examples of docs/api.md, asked of the daemon's HTTP server with a service that lends nothing.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { execute } from '../helpers/cli.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'
import { fakeService } from '../unit/daemon/http/fake-service.ts'
import { type Lab, lab } from '../unit/daemon/http/lab.ts'

const SOCKET = '/run/bpftoken/bpftokend.sock'
const EXAMPLES = shellBlocks('docs/api.md').filter(({ name }) => name === 'daemon')

const CURL = spawnSync('curl', ['--version']).status === 0 ? {} : { skip: 'there is no curl here' }

describe('docs/api.md', CURL, () => {
  let daemon: Lab
  before(async () => {
    daemon = await lab({ service: fakeService() })
    daemon.uid = 0
  })
  after(() => daemon[Symbol.asyncDispose]())

  /** The output of curl, with the status of the answer behind it. */
  const ask = async (script: string): Promise<{ status: number; said: string }> => {
    const here = script.replaceAll(SOCKET, daemon.path).replace('curl ', "curl -sS -w '\\n%{http_code}' ")
    const { status, stdout, stderr } = await execute('bash', ['-euo', 'pipefail', '-c', here])
    assert.equal(status, 0, stderr)
    const end = stdout.lastIndexOf('\n')
    return { status: Number(stdout.slice(end + 1)), said: stdout.slice(0, end) }
  }

  for (const { script } of EXAMPLES)
    test(`runs: ${script.split('\n')[0]}`, async () => {
      const { status, said } = await ask(script)
      assert.ok(status >= 200 && status < 300, `${status} ${said}`)
    })

  test('an example with a word that its schema does not have would be told', async () => {
    const script = EXAMPLES.find(one => one.script.includes('/decide'))!.script
    assert.equal((await ask(script.replace('"policy"', '"polcy"'))).status, 400)
  })

  test('there is one of each route', () => assert.ok(EXAMPLES.length >= 18))
})
