/**
 * The tests that run in virtual machines: which of them with which kernel, and what came out. The
 * longest are started first. While tests run on this machine, one VM runs beside them; then as many
 * as may run at a time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Report } from '../report.ts'
import { RUN_VARIABLE } from '../residue.ts'
import { ROOT } from '../tree.ts'
import { CRUN, SYSTEMD, VM } from './initramfs.ts'
import { VMS_AT_A_TIME } from './machine.ts'

interface Machine {
  readonly kernel: string
  readonly title: string
  readonly files: readonly string[]
  /** It ends what hangs: a machine that is slow and busy stays far below. */
  readonly timeoutSec: number
  /** What the VM takes along, beside the repository. */
  readonly extra?: readonly string[]
  /** Its first process is a systemd. */
  readonly systemd?: boolean
}

/** Needs a kernel that the others cannot use. */
const WITHOUT_TOKENS = 'test/vm/no-tokens.test.ts'

/** Needs a systemd that is the first process, and takes long: the daemon starts many times. */
const UNDER_SYSTEMD = 'test/vm/daemon-systemd.test.ts'

/** Locks its kernel down until the next boot. */
const UNDER_LOCKDOWN = 'test/vm/lockdown.test.ts'

/**
 * What behaves the same everywhere is tested once, on the kernel that runs here. This depends on
 * the kernel.
 */
const KERNEL_FILES = [
  ...readdirSync(join(ROOT, 'test/kernel/delegation'))
    .filter(name => name.endsWith('.test.ts'))
    .map(name => `test/kernel/delegation/${name}`),
  'test/kernel/ebpf',
  'test/kernel/model',
  'test/kernel/uapi.test.ts',
]

/**
 * The longest of the guard's files, which depend on the kernel least: the one kernel that they are
 * tested with where not everything is asked for.
 */
const ON_ONE_KERNEL: Readonly<Record<string, string>> = {
  'test/vm/explain.test.ts': '7',
  'test/vm/guard-cli.test.ts': '7',
  'test/vm/guard-detach.test.ts': '6.12',
  'test/vm/guard-exchange.test.ts': '7',
  'test/vm/guard-objects.test.ts': '6.12',
  'test/vm/guard-pins.test.ts': '6.12',
  'test/vm/modules.test.ts': '6.12',
}

/**
 * Takes a minute or more on each: run where everything is asked for. What is recorded is tried on 6.1
 * all the same.
 */
const LONG: ReadonlySet<string> = new Set(
  ['containers', 'guard-races', 'permissive', 'record'].map(name => `test/vm/${name}.test.ts`),
)

function machines(everything: boolean): Machine[] {
  const guardFiles = readdirSync(join(ROOT, 'test/vm'))
    .filter(name => name.endsWith('.test.ts'))
    .map(name => `test/vm/${name}`)
    .filter(file => ![WITHOUT_TOKENS, UNDER_SYSTEMD, UNDER_LOCKDOWN].includes(file))
  const kernels = ['6.12', '7']
  return [
    ...kernels.map(kernel => ({
      kernel,
      title: `Linux ${kernel}, guard`,
      files: guardFiles.filter(
        file => everything || (!LONG.has(file) && (ON_ONE_KERNEL[file] ?? kernel) === kernel),
      ),
      timeoutSec: 7200,
      extra: [SYSTEMD, CRUN],
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
    { kernel: '7', title: 'Linux 7, lockdown', files: [UNDER_LOCKDOWN], timeoutSec: 1200 },
    {
      kernel: '6.1',
      title: 'Linux 6.1',
      files: [WITHOUT_TOKENS, 'test/vm/record.test.ts', 'test/kernel/model/differential.test.ts'],
      timeoutSec: 1200,
    },
  ]
}

/** The virtual machines of one run of the tests. */
export class VmRuns {
  readonly #runs: readonly Run[]
  /** Those that have not started yet; whoever may start one takes it from here. */
  readonly #queue: Iterable<Run>
  /** Where QEMU or kernels cannot be had: this is the result. */
  readonly #unavailable: Report | undefined

  /** Starts one VM, and after it the next. `everything`: the longest tests run on each kernel. */
  constructor(everything: boolean) {
    this.#unavailable = unavailable()
    this.#runs = this.#unavailable === undefined ? machines(everything).map(machine => new Run(machine)) : []
    this.#queue = this.#runs.values()
    void startEach(this.#queue)
  }

  /**
   * Lets as many run as may; shows their output, one after the other, when all the rest is done.
   */
  async finish(): Promise<Report> {
    if (this.#unavailable !== undefined) return this.#unavailable
    for (let i = 1; i < VMS_AT_A_TIME; i++) void startEach(this.#queue)
    const total = new Report()
    for (const run of this.#runs) {
      console.log(`\n== ${run.machine.title} ==`)
      run.show()
      total.add(await run.report, `${run.machine.title}: `)
    }
    return total
  }
}

/** One skip, with its reason, or one failure; undefined: VMs can be started. */
function unavailable(): Report | undefined {
  if (spawnSync(join(ROOT, 'scripts/fetch-vm.sh'), { stdio: ['ignore', 2, 2] }).status === 0) return undefined
  const report = new Report()
  const reason = join(VM, 'why-not')
  if (existsSync(reason)) report.skips.push(`no VM: ${readFileSync(reason, 'utf8').trim()}`)
  else report.failures.push('scripts/fetch-vm.sh ended with an error')
  return report
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
    // Who shows the runs asks later; until then a failure is nobody's.
    this.report.catch(() => {})
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
    // Not among the temporary files, which the tests beside us are searched for what they left.
    const out = mkdtempSync(join(VM, 'report-'))
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

function boot(
  { kernel, files, timeoutSec, extra = [], systemd = false }: Machine,
  out: string,
): ChildProcess {
  const vm = [process.execPath, '--import', 'tsx', 'scripts/vm/vm.ts']
  const options = ['--kernel', kernel, '--timeout', String(timeoutSec), '--out', out]
  for (const path of extra) options.push('--with', path)
  if (systemd) options.push('--systemd')
  // It is no process that a test of this machine left behind.
  const { [RUN_VARIABLE]: _, ...env } = process.env
  // It ends with us, and its VM with it.
  return spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...vm, ...options, '--tests', ...files], {
    cwd: ROOT,
    env,
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
