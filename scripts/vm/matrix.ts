/**
 * The tests that run in virtual machines: which of them with which kernel, and what came out. As
 * many VMs are started as may run at a time, the longest first.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Report } from '../report.ts'
import { CACHE, ROOT } from '../tree.ts'
import { SYSTEMD } from './initramfs.ts'
import { VMS_AT_A_TIME } from './machine.ts'

interface Machine {
  readonly kernel: string
  readonly title: string
  readonly files: readonly string[]
  /** It ends what hangs: a machine that is slow and busy stays far below. */
  readonly timeoutSec: number
  /** What the VM takes along, beside the repository. */
  readonly extra?: string
  /** Its first process is a systemd. */
  readonly systemd?: boolean
}

/** Needs a kernel that the others cannot use. */
const WITHOUT_TOKENS = 'test/vm/no-tokens.test.ts'

/** Needs a systemd that is the first process, and takes long: the daemon starts many times. */
const UNDER_SYSTEMD = 'test/vm/daemon-systemd.test.ts'

/**
 * What behaves the same everywhere is tested once, on the kernel that runs here. This depends on
 * the kernel.
 */
const KERNEL_FILES = [
  ...readdirSync(join(ROOT, 'test/kernel/delegation'))
    .filter(name => name.endsWith('.test.ts'))
    .map(name => `test/kernel/delegation/${name}`),
  'test/kernel/ebpf',
  'test/kernel/uapi.test.ts',
]

/**
 * The longest of the guard's files, which depend on the kernel least: the one kernel that they are
 * tested with where not everything is asked for.
 */
const ON_ONE_KERNEL: Readonly<Record<string, string>> = {
  'test/vm/guard-cli.test.ts': '7',
  'test/vm/guard-races.test.ts': '6.12',
}

function machines(everything: boolean): Machine[] {
  const guardFiles = readdirSync(join(ROOT, 'test/vm'))
    .filter(name => name.endsWith('.test.ts'))
    .map(name => `test/vm/${name}`)
    .filter(file => file !== WITHOUT_TOKENS && file !== UNDER_SYSTEMD)
  const kernels = ['6.12', '7']
  return [
    ...kernels.map(kernel => ({
      kernel,
      title: `Linux ${kernel}, guard`,
      files: guardFiles.filter(file => everything || (ON_ONE_KERNEL[file] ?? kernel) === kernel),
      timeoutSec: 7200,
      extra: SYSTEMD,
    })),
    ...kernels.map(kernel => ({ kernel, title: `Linux ${kernel}`, files: KERNEL_FILES, timeoutSec: 3600 })),
    ...kernels
      .filter(() => everything)
      .map(kernel => ({
        kernel,
        title: `Linux ${kernel}, systemd`,
        files: [UNDER_SYSTEMD],
        timeoutSec: 3600,
        systemd: true,
      })),
    { kernel: '6.1', title: 'Linux 6.1', files: [WITHOUT_TOKENS], timeoutSec: 1200 },
  ]
}

/**
 * Runs them, to standard output one after the other. `everything`: also the longest with each
 * kernel. Where QEMU or kernels cannot be had, that is one skip.
 */
export async function runVms(everything: boolean): Promise<Report> {
  const total = new Report()
  if (spawnSync(join(ROOT, 'scripts/fetch-vm.sh'), { stdio: ['ignore', 2, 2] }).status !== 0) {
    const reason = join(CACHE, 'vm/why-not')
    if (existsSync(reason)) total.skips.push(`no VM: ${readFileSync(reason, 'utf8').trim()}`)
    else total.failures.push('scripts/fetch-vm.sh ended with an error')
    return total
  }
  const runs = machines(everything).map(machine => new Run(machine))
  const queue = runs.values()
  for (let i = 0; i < VMS_AT_A_TIME; i++) void startEach(queue)
  for (const run of runs) {
    console.log(`\n== ${run.machine.title} ==`)
    run.show()
    total.add(await run.report, `${run.machine.title}: `)
  }
  return total
}

/** One after the other; several of these may share the queue. */
async function startEach(queue: Iterable<Run>): Promise<void> {
  for (const run of queue) await run.start()
}

class Run {
  readonly machine: Machine
  /** Of a run that may not have started yet. */
  readonly report: Promise<Report>
  /** Returns when it has ended, whatever came of it. */
  readonly start: () => Promise<void>
  /** Output that waits for its turn; undefined once it is shown as it comes. */
  #held: Buffer[] | undefined = []

  constructor(machine: Machine) {
    this.machine = machine
    let start!: () => Promise<void>
    this.report = new Promise((resolve, reject) => {
      start = () => this.#run().then(resolve, reject)
    })
    this.start = start
  }

  /** Shows the output, what there is and what will come. */
  show(): void {
    for (const bytes of this.#held ?? []) process.stdout.write(bytes)
    this.#held = undefined
  }

  #take(bytes: Buffer): void {
    if (this.#held === undefined) process.stdout.write(bytes)
    else this.#held.push(bytes)
  }

  async #run(): Promise<Report> {
    const out = mkdtempSync(join(tmpdir(), 'bpftoken-vm-'))
    try {
      const child = boot(this.machine, out)
      for (const stream of [child.stdout!, child.stderr!])
        stream.on('data', (bytes: Buffer) => this.#take(bytes))
      let told = 'ended without a word'
      createInterface(child.stderr!).on('line', line => {
        told = line
      })
      const status = await new Promise<number | null>((resolve, reject) => {
        child.once('error', reject).once('close', resolve)
      })
      const file = join(out, 'report.json')
      return vmReport(status, existsSync(file) ? readFileSync(file, 'utf8') : undefined, told)
    } finally {
      rmSync(out, { recursive: true, force: true })
    }
  }
}

function boot({ kernel, files, timeoutSec, extra, systemd = false }: Machine, out: string): ChildProcess {
  const vm = [process.execPath, '--import', 'tsx', 'scripts/vm/vm.ts']
  const options = ['--kernel', kernel, '--timeout', String(timeoutSec), '--out', out]
  if (extra !== undefined) options.push('--with', extra)
  if (systemd) options.push('--systemd')
  // It ends with us, and its VM with it.
  return spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...vm, ...options, '--tests', ...files], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/**
 * What a VM came to. `written`: the report of the tests in it; `told`: the last that was said of
 * the machine itself. One that broke or hung counts as a failure, whatever its tests said before.
 */
export function vmReport(status: number | null, written: string | undefined, told: string): Report {
  const report = written === undefined ? new Report() : Report.parse(written)
  const expected = report.failures.length > 0 ? 1 : 0
  if (written === undefined || status !== expected) report.failures.push(`status ${status}: ${told}`)
  return report
}
