/** bpftoken top: what is lent, live, until q. */
import { setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import type { Client } from '../../client/client.ts'
import { BpftokenError, EXIT, UsageError } from '../../errors.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { Interrupted } from '../interrupted.ts'
import { FullScreen, stdoutIsTerminal } from '../output.ts'
import { type Sort, TopView } from '../top-view.ts'

/** More loans than these are not shown. */
const MAX_LOANS = 1000
const PERIOD_MS = 1000

export async function top(options: SocketOptions & { sort: Sort; json?: boolean }): Promise<number> {
  if (options.json === true || !stdoutIsTerminal() || !isatty(0))
    throw new UsageError('top draws on a terminal, and there is none for it', {
      hint: 'For programs: bpftoken ls --json, and bpftoken events --follow --json',
    })
  using daemon = await daemonAt(options)
  const view = new TopView(options.sort)
  // Whoever cannot be asked is told so on the usual screen.
  await refresh(daemon, view)
  const session = new Session(daemon, view)
  await session.run()
  return EXIT.ok
}

async function refresh(daemon: Client, view: TopView): Promise<void> {
  const [{ loans }, { requests }] = await Promise.all([
    daemon.listLoans({ query: { state: 'live', limit: MAX_LOANS + 1 } }),
    daemon.listRequests({ query: { state: 'waiting' } }),
  ])
  view.update(loans.slice(0, MAX_LOANS), { more: loans.length > MAX_LOANS, waiting: requests.length })
}

/** The terminal is as it was, whichever way this ends: by a key, a signal, a failure, exit(2). */
class Session {
  readonly #daemon: Client
  readonly #view: TopView
  readonly #screen = new FullScreen()
  readonly #end = new AbortController()

  constructor(daemon: Client, view: TopView) {
    this.#daemon = daemon
    this.#view = view
  }

  async run(): Promise<void> {
    const input = process.stdin
    const handlers: readonly (readonly [NodeJS.Signals, () => void])[] = [
      ...(['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map(
        signal => [signal, () => this.#end.abort(new Interrupted(signal))] as const,
      ),
      ['SIGTSTP', () => this.#suspend()],
      ['SIGCONT', () => this.#enter()],
    ]
    const leave = (): void => this.#leave()
    const draw = (): void => this.#draw()
    const press = (text: Buffer): void => this.#press(text.toString('latin1'))
    const hangUp = (): void => this.#end.abort(new Interrupted('SIGHUP'))
    process.once('exit', leave)
    for (const [signal, handler] of handlers) process.on(signal, handler)
    process.stdout.on('resize', draw)
    input.on('data', press).on('end', hangUp).on('error', hangUp)
    try {
      this.#enter()
      await Promise.all([this.#refresh(), this.#count()])
    } finally {
      leave()
      process.off('exit', leave)
      for (const [signal, handler] of handlers) process.off(signal, handler)
      process.stdout.off('resize', draw)
      input.off('data', press).off('end', hangUp).off('error', hangUp).pause()
    }
    const { reason } = this.#end.signal
    if (reason instanceof Error && reason !== QUIT) throw reason
  }

  #enter(): void {
    // Whoever stopped us may have changed it: Node takes what it has set itself as it is.
    process.stdin.setRawMode(false)
    process.stdin.setRawMode(true)
    process.stdin.resume()
    this.#screen.enter()
    this.#draw()
  }

  #leave(): void {
    this.#screen.leave()
    try {
      process.stdin.setRawMode(false)
    } catch {
      // There is no terminal any more.
    }
  }

  /** SIGCONT enters again. */
  #suspend(): void {
    this.#leave()
    process.kill(process.pid, 'SIGSTOP')
  }

  #draw(): void {
    try {
      this.#screen.draw(this.#view.lines(this.#screen.size, Date.now()))
    } catch (error) {
      this.#end.abort(error)
    }
  }

  #press(text: string): void {
    for (const key of keysIn(text)) {
      const command = this.#view.press(key, Date.now())
      if (command?.do === 'quit') this.#end.abort(QUIT)
      else if (command?.do === 'suspend') this.#suspend()
      else if (command?.do === 'revoke') void this.#revoke(command.id)
    }
    if (!this.#end.signal.aborted) this.#draw()
  }

  async #revoke(id: string): Promise<void> {
    try {
      const { loans, complete } = await this.#daemon.revoke({ body: { what: { loan: id } } })
      this.#view.tell(`${loans.length} taken back${complete ? '' : '; something stays, or may'}`)
      await refresh(this.#daemon, this.#view)
    } catch (error) {
      this.#view.tell(`${id}: ${messageOf(error)}`)
    }
    if (!this.#end.signal.aborted) this.#draw()
  }

  async #refresh(): Promise<void> {
    const { signal } = this.#end
    while (!signal.aborted) {
      await sleep(PERIOD_MS, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      try {
        await refresh(this.#daemon, this.#view)
      } catch (error) {
        // It may be starting anew: what was known is shown until then.
        this.#view.tell(messageOf(error))
      }
      if (!signal.aborted) this.#draw()
    }
  }

  /** What comes from now on. */
  async #count(): Promise<void> {
    const { signal } = this.#end
    while (!signal.aborted) {
      try {
        const { next } = await this.#daemon.events({ query: { since: new Date().toISOString(), limit: 1 } })
        for await (const event of this.#daemon.follow('events', { query: { after: next } }, { signal }))
          this.#view.count(event, Date.now())
      } catch (error) {
        if (signal.aborted) return
        this.#view.tell(`events: ${messageOf(error)}`)
      }
      await sleep(PERIOD_MS, undefined, { signal }).catch(() => {})
    }
  }
}

const QUIT = new Error('quit')

function messageOf(error: unknown): string {
  return error instanceof BpftokenError ? error.message : String(error)
}

/** What came from the terminal at once, as keys: those that send several characters are one. */
export function keysIn(text: string): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what such keys begin with
  return text.match(/\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]/g) ?? []
}
