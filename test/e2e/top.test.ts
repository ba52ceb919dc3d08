/**
 * `top` on a terminal of its own: what it draws, what its keys do, and that the terminal is as it
 * was, whichever way it ends.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { CLI, cli } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { fakeService, LOAN } from '../unit/daemon/http/fake-service.ts'
import { lab } from '../unit/daemon/http/lab.ts'

/** What a terminal is told when top takes it, and gives it back. */
const ENTERS = '\x1b[?1049h\x1b[?25l'
const LEAVES = '\x1b[?25h\x1b[?1049l'

/** A shell on a terminal that runs top, and says how the terminal was before it and is after it. */
class Terminal implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  output = ''

  constructor(socket: string, { rows = 24, columns = 80 } = {}) {
    const top = `'${process.execPath}' '${CLI}' top --socket '${socket}'`
    const line = `stty rows ${rows} cols ${columns}; echo before:$(stty -g); ${top}; echo status:$?; echo after:$(stty -g)`
    this.#child = spawn('script', ['-qefc', line, '/dev/null'], {
      stdio: 'pipe',
      env: { ...process.env, TERM: 'xterm', SHELL: '/bin/sh' },
    })
    this.#child.stdout!.on('data', chunk => {
      this.output += chunk
    })
    this.#ended = new Promise(resolve => this.#child.once('exit', () => resolve()))
  }

  type(keys: string): void {
    this.#child.stdin!.write(keys)
  }

  async sees(text: string | RegExp): Promise<void> {
    const seen = (): boolean =>
      typeof text === 'string' ? this.output.includes(text) : text.test(this.output)
    await eventually(seen, `no ${text} in ${JSON.stringify(this.output.slice(-2000))}`)
  }

  /** The process of top. */
  async pid(): Promise<number> {
    let pid: number | undefined
    await eventually(() => {
      pid = descendants(this.#child.pid!).find(one => argumentsOf(one).includes('top'))
      return pid !== undefined
    }, 'top does not run')
    return pid!
  }

  /** Its exit status, once the terminal is found to be as it was. */
  async end(): Promise<number> {
    await this.#ended
    const [, before] = /before:(\S+)/.exec(this.output) ?? []
    const [, after] = /after:(\S+)/.exec(this.output) ?? []
    assert.ok(before !== undefined, this.output)
    assert.equal(after, before, 'the terminal is not as it was')
    assert.equal(
      this.output.split(ENTERS).length,
      this.output.split(LEAVES).length,
      'not left as often as entered',
    )
    assert.ok(this.output.lastIndexOf(LEAVES) > this.output.lastIndexOf(ENTERS))
    return Number(/status:(\d+)/.exec(this.output)?.[1])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }
}

function descendants(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(Boolean)
    .map(Number)
  return [...children, ...children.flatMap(descendants)]
}

function argumentsOf(pid: number): string[] {
  try {
    const [program = '', ...words] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return program === process.execPath ? words : []
  } catch {
    return []
  }
}

test('it draws within 80 columns and 24 lines, opens, revokes, and leaves the terminal as it was', async () => {
  const service = fakeService()
  await using daemon = await lab({ service })
  await using terminal = new Terminal(daemon.path)
  await terminal.sees(/> loan-1 .*process 8 .*tokens .*# ?-----/)
  terminal.type('\r')
  await terminal.sees('1 of 8')
  terminal.type('r')
  await terminal.sees('Revoke loan-1')
  terminal.type('y')
  await terminal.sees('1 taken back')
  terminal.type('q')
  assert.equal(await terminal.end(), 0)
  assert.ok(service.asked.some(({ route }) => route === 'revoke'))
  const frames = terminal.output.split('\x1b[H').slice(2)
  for (const frame of frames) {
    const lines = frame.split('\x1b[J')[0]!.split(/\r+\n/)
    assert.ok(lines.length <= 24, `${lines.length} lines`)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours have no width
    for (const line of lines) assert.ok(line.replace(/\x1b\[[0-9;]*[a-zA-Z]/g, '').length <= 80, line)
  }
})

for (const [name, how, status] of [
  ['Ctrl-C', '\x03', 0],
  ['SIGINT', 'SIGINT', 130],
  ['SIGTERM', 'SIGTERM', 143],
  ['SIGHUP', 'SIGHUP', 129],
] as const)
  test(`${name} ends it, and the terminal is as it was`, async () => {
    await using daemon = await lab()
    await using terminal = new Terminal(daemon.path)
    await terminal.sees('> loan-1')
    if (how.startsWith('SIG')) process.kill(await terminal.pid(), how as NodeJS.Signals)
    else terminal.type(how)
    assert.equal(await terminal.end(), status)
  })

for (const how of ['\x1a', 'SIGTSTP'])
  test(`${how === '\x1a' ? 'Ctrl-Z' : how} gives the terminal back, and it goes on when it is continued`, async () => {
    await using daemon = await lab()
    await using terminal = new Terminal(daemon.path)
    await terminal.sees('> loan-1')
    const pid = await terminal.pid()
    if (how === 'SIGTSTP') process.kill(pid, how)
    else terminal.type(how)
    await terminal.sees(LEAVES)
    await eventually(
      () => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')),
      'it does not stop',
    )
    const before = terminal.output.length
    process.kill(pid, 'SIGCONT')
    await eventually(() => terminal.output.slice(before).includes(ENTERS), 'it does not come back')
    await eventually(() => terminal.output.slice(before).includes('> loan-1'), 'it draws nothing')
    terminal.type('q')
    assert.equal(await terminal.end(), 0)
  })

test('the daemon goes away: what was known stays, with what is wrong', async () => {
  const daemon = await lab()
  await using terminal = new Terminal(daemon.path)
  try {
    await terminal.sees('> loan-1')
    await daemon.server.stop(0)
    await terminal.sees(/daemon at|No daemon answers/)
    const before = terminal.output.length
    terminal.type('j')
    await eventually(() => terminal.output.slice(before).includes('> loan-1'), 'nothing is shown')
    terminal.type('q')
    assert.equal(await terminal.end(), 0)
  } finally {
    await daemon[Symbol.asyncDispose]()
  }
})

test('text that moves cursors is shown, and moves none', async () => {
  const evil = { ...LOAN, policy: 'a\x1b[2Jb\r\nc' }
  await using daemon = await lab({
    service: fakeService({ listLoans: () => Promise.resolve({ status: 200, body: { loans: [evil] } }) }),
  })
  await using terminal = new Terminal(daemon.path)
  await terminal.sees('> loan-1')
  assert.ok(terminal.output.includes('a\\u{1b}[2'))
  terminal.type('q')
  assert.equal(await terminal.end(), 0)
  assert.equal(terminal.output.split('\x1b[2J').length, 2, 'only the one that clears the screen at first')
})

test('without a terminal, or without a daemon, it says so on the usual screen', async () => {
  await using daemon = await lab()
  for (const words of [[], ['--json']]) {
    const { status, stdout, stderr } = await cli(['top', '--socket', daemon.path, ...words])
    assert.deepEqual([status, stdout], [2, ''])
    assert.match(stderr, /terminal/)
    assert.match(stderr, /bpftoken ls --json/)
  }
  await using terminal = new Terminal('/no/such.sock')
  await terminal.sees('status:5')
  assert.ok(!terminal.output.includes('\x1b['))
  assert.ok(terminal.output.includes('No daemon answers'))
})
