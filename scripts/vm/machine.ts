/** One boot of a kernel under QEMU's software emulation, from start to power-off. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { type Job, jobLayer, VM } from './initramfs.ts'

const TOOLS = join(VM, 'tools')
const LIBRARIES = ['lib', 'usr/lib'].map(dir => join(TOOLS, dir, 'x86_64-linux-gnu'))

/** With cx16, which needs QEMU 10 here: without it inode storage does not work on 7.1 and newer. */
const HARDWARE = ['-accel', 'tcg,thread=multi', '-cpu', 'max,la57=off', '-m', '1024', '-smp', '2']

/** So many VMs run at once: a test keeps one processor busy, and each VM takes 1 GiB. */
const LOCKS = ['lock-0', 'lock-1'].map(name => join(VM, name))
export const VMS_AT_A_TIME = LOCKS.length
/** flock's answer when another VM has the lock. */
const BUSY = 75

/**
 * Not UBSAN: from 7.2 on, printing the masks of any delegated bpffs shifts too far, harmlessly on
 * x86.
 */
const BROKEN = /Kernel panic|Oops|BUG:/

/** How a boot ended. `broken` tells what the kernel said, `hung` that time ran out. */
export type End =
  | { readonly kind: 'exit'; readonly status: number }
  | { readonly kind: 'broken'; readonly line: string }
  | { readonly kind: 'hung' }
  | { readonly kind: 'stopped'; readonly reason: string }

export interface Boot extends Job {
  readonly base: string
  readonly repository: readonly Buffer[]
  readonly timeoutMs: number
  /**
   * Whether an oops of the kernel is what the job is about: then it does not end the VM, and is no
   * failure.
   */
  readonly allowOops: boolean
  readonly log: string
  /** Where what the job leaves in /run/out goes, as a tar archive. */
  readonly tar: string
  readonly output: (bytes: Buffer) => void
  readonly progress: (text: string) => void
}

let running: ChildProcess | undefined
let killed = false

/** Kills the VM at once, if one runs, and lets none start. */
export function kill(): void {
  killed = true
  running?.kill('SIGKILL')
}

function command(boot: Boot, initrd: string, lock: string): string[] {
  const { log, kernel } = boot
  const append = ['console=ttyS0', 'panic=-1', 'lsm=capability,landlock,bpf', 'loglevel=4']
  if (!boot.allowOops) append.push('oops=panic')
  return [
    // The lock and the end of QEMU with us are the kernel's business: nothing that we leave can be
    // stale.
    ...['flock', '--nonblock', '--conflict-exit-code', String(BUSY), '--no-fork', lock],
    ...['setpriv', '--pdeathsig', 'KILL', '--'],
    ...[join(LIBRARIES[0]!, 'ld-linux-x86-64.so.2'), '--library-path', LIBRARIES.join(':')],
    join(TOOLS, 'usr/bin/qemu-system-x86_64'),
    ...['-L', join(TOOLS, 'usr/share/qemu'), '-L', join(TOOLS, 'usr/share/seabios')],
    ...HARDWARE,
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-serial', `file:${log}`, '-serial', 'stdio'],
    ...['-kernel', join(VM, `kernel-${kernel}/vmlinuz`), '-initrd', initrd, '-append', append.join(' ')],
  ]
}

/** Splits what the job writes from what init says about it. */
class Reader {
  readonly #mark: Buffer
  #rest = Buffer.alloc(0)
  status: number | undefined
  tar: number | undefined
  readonly #boot: Boot

  constructor(boot: Boot) {
    this.#boot = boot
    this.#mark = Buffer.from(`\x1e${boot.mark} `)
  }

  take(bytes: Buffer): void {
    if (this.tar !== undefined) {
      writeSync(this.tar, bytes)
      return
    }
    this.#rest = Buffer.concat([this.#rest, bytes])
    for (;;) {
      const at = this.#rest.indexOf(0x1e)
      if (at < 0) break
      this.#emit(at)
      const candidate = this.#rest.subarray(0, this.#mark.length)
      if (candidate.compare(this.#mark, 0, candidate.length) !== 0) {
        this.#emit(1)
        continue
      }
      const end = this.#rest.indexOf('\n')
      if (end < 0) return // Its rest is still to come.
      this.#word(this.#rest.toString('latin1', this.#mark.length, end))
      this.#rest = this.#rest.subarray(end + 1)
      if (this.tar !== undefined) {
        this.take(this.#rest)
        return
      }
    }
    this.#emit(this.#rest.length)
  }

  #emit(length: number): void {
    if (length > 0) this.#boot.output(this.#rest.subarray(0, length))
    this.#rest = this.#rest.subarray(length)
  }

  #word(text: string): void {
    const [what, value] = text.split(' ')
    if (what === 'up') this.#boot.progress(`is up (its clock: ${value} s)`)
    if (what !== 'exit') return
    this.status = Number(value)
    this.tar = openSync(this.#boot.tar, 'w')
  }
}

/** Runs the job to its end, or until the kernel breaks or time runs out. */
export async function boot(options: Boot): Promise<End> {
  const initrd = join(VM, `initrd-${process.pid}.cpio`)
  removeStale()
  try {
    const parts = [readFileSync(options.base), ...options.repository, ...jobLayer(options)]
    const fd = openSync(initrd, 'w')
    for (const part of parts) writeSync(fd, part)
    closeSync(fd)
    for (let told = false; ; told = true) {
      for (const lock of LOCKS) {
        const end = await attempt(options, initrd, lock)
        if (end !== undefined) return end
        if (killed) return { kind: 'stopped', reason: 'interrupted' }
      }
      if (!told) options.progress('waits for another VM to end')
      await new Promise(resolve => setTimeout(resolve, 500))
    }
  } finally {
    rmSync(initrd, { force: true })
  }
}

/** What callers left that were killed. */
function removeStale(): void {
  for (const name of readdirSync(VM)) {
    const pid = /^(?:(?:initrd|out)-(?:.*-)?(\d+)(?:-again)?\.(?:cpio|tar)|base-.*\.cpio\.(\d+))$/
      .exec(name)
      ?.slice(1)
      .find(Boolean)
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(VM, name), { force: true })
  }
}

/** undefined when another VM has the lock. */
async function attempt(options: Boot, initrd: string, lock: string): Promise<End | undefined> {
  rmSync(options.log, { force: true })
  const [program, ...args] = command(options, initrd, lock)
  const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  running = child
  const reader = new Reader(options)
  let complaint = ''
  let hung = false
  const timer = setTimeout(() => {
    hung = true
    child.kill('SIGKILL')
  }, options.timeoutMs)
  const watch = options.allowOops
    ? undefined
    : setInterval(() => {
        // A panic reboots, and that ends QEMU; but not always.
        if (brokenLine(options.log) === undefined) return
        clearInterval(watch)
        setTimeout(() => child.kill('SIGKILL'), 3000).unref()
      }, 2000)
  child.stdout.on('data', (bytes: Buffer) => reader.take(bytes))
  child.stderr.on('data', (bytes: Buffer) => {
    complaint += bytes.toString()
  })
  try {
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve, reject) => {
      child.once('error', reject).once('close', (...end) => resolve(end))
    })
    if (code === BUSY && complaint === '') return undefined
    const line = brokenLine(options.log)
    if (line !== undefined && !options.allowOops) return { kind: 'broken', line }
    if (reader.status !== undefined) return { kind: 'exit', status: reader.status }
    if (hung) return { kind: 'hung' }
    return { kind: 'stopped', reason: complaint.trim() || `QEMU ended with ${signal ?? code}` }
  } finally {
    running = undefined
    clearTimeout(timer)
    clearInterval(watch)
    if (reader.tar !== undefined) closeSync(reader.tar)
  }
}

/** The first line of the kernel's that should not be there. */
function brokenLine(log: string): string | undefined {
  if (!existsSync(log)) return undefined
  return readFileSync(log, 'latin1')
    .split('\n')
    .find(line => BROKEN.test(line))
    ?.trim()
}
