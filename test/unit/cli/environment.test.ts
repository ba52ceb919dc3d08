import assert from 'node:assert/strict'
import { test } from 'node:test'
import { workloadEnvironment } from '../../../src/cli/environment.ts'
import { UsageError } from '../../../src/errors.ts'

const user = { name: 'alice', home: '/home/alice', shell: '/bin/zsh' }
const ALICE = { HOME: '/home/alice', USER: 'alice', LOGNAME: 'alice', SHELL: '/bin/zsh' }
const of = (caller: NodeJS.ProcessEnv, wish: object = {}): Record<string, string> => ({
  ...workloadEnvironment(caller, { user, tokenPath: '/sys/fs/bpf', ...wish }),
})

const ROOT = {
  ...{ PATH: '/bin', TERM: 'xterm', LANG: 'C', LC_ALL: 'C.UTF-8', LC_TERMINAL_VERSION: '3', TZ: 'UTC' },
  ...{
    HOME: '/root',
    USER: 'root',
    SECRET: 's',
    LD_PRELOAD: '/x',
    SUDO_UID: '0',
    LC_: 'x',
    XLANG: 'x',
    PATHS: 'x',
  },
}

test('workloadEnvironment() takes a short list of the caller, and the user of the program', () => {
  assert.deepEqual(of({}), ALICE)
  assert.deepEqual(of(ROOT), {
    ...{ PATH: '/bin', TERM: 'xterm', LANG: 'C', LC_ALL: 'C.UTF-8', LC_TERMINAL_VERSION: '3', TZ: 'UTC' },
    ...ALICE,
  })
})

test('workloadEnvironment() takes what is named, and with keep everything', () => {
  const named = ['SECRET', 'A=b=c', 'EMPTY=', 'LINES=a\nb', 'A=last', 'HOME=/tmp']
  assert.deepEqual(of({ SECRET: 's', OTHER: 'o' }, { named }), {
    ...ALICE,
    ...{ SECRET: 's', A: 'last', EMPTY: '', LINES: 'a\nb', HOME: '/tmp' },
  })
  assert.deepEqual(of(ROOT, { keep: true }), { ...ROOT, ...ALICE })
  for (const word of ['', '=', '=x', 'MISSING'])
    assert.throws(() => of({}, { named: [word] }), UsageError, JSON.stringify(word))
})

test('workloadEnvironment() names the place of the delegation where loaders would not look', () => {
  const place = (caller: NodeJS.ProcessEnv, tokenPath: string): string | undefined =>
    of(caller, { tokenPath })['LIBBPF_BPF_TOKEN_PATH']
  assert.equal(place({}, '/sys/fs/bpf'), undefined)
  assert.equal(place({}, '/mnt'), '/mnt')
  assert.equal(place({ LIBBPF_BPF_TOKEN_PATH: '/else' }, '/sys/fs/bpf'), '/sys/fs/bpf')
})

test('workloadEnvironment() takes any name, and none that is of the language only', () => {
  const caller = JSON.parse('{"__proto__": "x", "constructor": "y"}') as NodeJS.ProcessEnv
  const names = (wish: object, from = caller): string[] =>
    Object.keys(workloadEnvironment(from, { user, tokenPath: '/sys/fs/bpf', ...wish })).filter(
      name => !Object.hasOwn(ALICE, name),
    )
  assert.deepEqual(names({ keep: true }), ['__proto__', 'constructor'])
  assert.deepEqual(names({ named: ['__proto__=z'] }, {}), ['__proto__'])
  assert.deepEqual(names({ named: ['__proto__'] }), ['__proto__'])
  for (const word of ['__proto__', 'toString'])
    assert.throws(() => of({}, { named: [word] }), UsageError, word)
})

test('workloadEnvironment() refuses what Node could not read', () => {
  for (const [caller, wish] of [
    [{ LANG: 'a\ufffd' }, {}],
    [{ SECRET: '\ufffd' }, { keep: true }],
    [{ 'A\ufffd': 'x' }, { keep: true }],
    [{}, { named: ['A=\ufffd'] }],
  ] as const)
    assert.throws(() => of(caller, wish), UsageError)
  assert.equal(of({ SECRET: '\ufffd', LANG: 'ü€😀' })['LANG'], 'ü€😀')
})
