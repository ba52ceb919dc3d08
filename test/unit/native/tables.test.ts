/** What native/ knows by heart of what is said elsewhere: names, codes, options. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { HOOK_SECONDS } from '../../../src/api/container-words.ts'
import { commandTree } from '../../../src/cli/tree.ts'
import { ERROR_CODES, EXIT } from '../../../src/errors.ts'
import { CAPABILITIES } from '../../../src/uapi/constants.ts'
import { ROOT } from '../../helpers/machine.ts'

const source = (name: string): string => readFileSync(join(ROOT, 'native', name), 'utf8')

test('the capabilities in C have the names and numbers of the kernel', () => {
  const [, list] = /NAMES\[\] = \{([^}]*)\}/.exec(source('capabilities.c'))!
  const names = [...list!.matchAll(/"(\w+)"/g)].map(([, name]) => `CAP_${name!.toUpperCase()}`)
  assert.deepEqual(Object.fromEntries(names.map((name, number) => [name, number])), CAPABILITIES)
})

test('the statuses in C are those of the codes', () => {
  const code = source('run/tell.c')
  const others = new Map(
    [...code.matchAll(/\{ "(BPFTOKEN_\w+)", EXIT_(\w+) \}/g)].map(([, name, exit]) => [name!, exit!]),
  )
  const numbers = {
    USAGE: EXIT.usage,
    DENIED: EXIT.denied,
    NOT_SUPPORTED: EXIT.notSupported,
    UNREACHABLE: EXIT.daemonUnreachable,
  }
  for (const [name, { exit }] of Object.entries(ERROR_CODES))
    assert.equal(numbers[others.get(name) as keyof typeof numbers] ?? EXIT.failed, exit, name)
  const [, list] = /enum exit_status \{([^}]*)\}/.exec(source('run/run.h'))!
  assert.equal(
    list!.replace(/\s+/g, ' ').trim(),
    'EXIT_FAILED = 1, EXIT_USAGE, EXIT_DENIED, EXIT_NOT_SUPPORTED, EXIT_UNREACHABLE',
  )
})

test('a runtime gives the hook longer than it takes itself, and not much', () => {
  const own = Number(/DEFAULT_TIMEOUT_SEC (\d+)/.exec(source('hook/main.c'))![1])
  assert.ok(HOOK_SECONDS > own && HOOK_SECONDS < 2 * own, `${HOOK_SECONDS} and ${own}`)
})

test('each option that the front knows is one of run', () => {
  const known = [...source('run/options.c').matchAll(/"(--\w[-\w]*)"/g)].map(([, option]) => option)
  const run = commandTree(() => {}, '')
    .withAllBelow()
    .find(({ path }) => path === 'run')!
  const options = new Set(run.options.map(({ long }) => long))
  assert.ok(known.length >= 10)
  for (const option of known) assert.ok(options.has(option!), option)
})
