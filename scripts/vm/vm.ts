/**
 * Runs a command, or tests, as root in a virtual machine with a kernel of Debian:
 *
 *   node --import tsx scripts/vm/vm.ts [--kernel 6.12|7|6.1] [--timeout S] [--with PATH]... [--systemd] [--out DIR] [--allow-oops] -- COMMAND...
 *   node --import tsx scripts/vm/vm.ts [same options] --tests FILE...
 *
 * The working directory is the repository, at the same path as here, as it is when the VM starts
 * (`make build` first); --with takes a further path of it along, such as .cache/sid. With --systemd
 * the first process is a systemd, with a file system of its own (systemd.sh). Node runs the
 * repository's TypeScript without any option. What the command leaves in /run/out comes back to
 * --out: with --tests, report.json. Its output is passed on (stderr too, to stdout), and its exit
 * status; 125 when the kernel broke or time ran out, with the path of the kernel's messages.
 *
 * scripts/fetch-vm.sh brings kernels and QEMU. Two VMs run at a time; others wait.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { ROOT } from '../tree.ts'
import { baseLayer, quoted, repositoryLayer, SYSTEMD, VM } from './initramfs.ts'
import { boot, type End, kill } from './machine.ts'

/** As `docker run` has it: the command's own statuses are below. */
const FAILED = 125

const { values: options, positionals } = parseArgs({
  options: {
    kernel: { type: 'string', default: '6.12' },
    timeout: { type: 'string', default: '1200' },
    with: { type: 'string', multiple: true, default: [] },
    systemd: { type: 'boolean', default: false },
    out: { type: 'string' },
    tests: { type: 'boolean', default: false },
    'allow-oops': { type: 'boolean', default: false },
  },
  allowPositionals: true,
})

function script(): string {
  if (positionals.length === 0) throw new Error('a command, or files of tests, must follow')
  const files = positionals.map(path => relative(ROOT, join(process.cwd(), path)))
  const words = options.tests
    ? ['node', 'scripts/test.ts', '--report', '/run/out/report.json', ...files]
    : positionals
  return `exec ${words.map(quoted).join(' ')}`
}

function fetch(): void {
  if (spawnSync(join(ROOT, 'scripts/fetch-vm.sh'), { stdio: ['ignore', 2, 2] }).status === 0) return
  const reason = join(VM, 'why-not')
  throw new Error(`no VM: ${existsSync(reason) ? readFileSync(reason, 'utf8').trim() : 'see above'}`)
}

function explain(end: Exclude<End, { kind: 'exit' }>): string {
  if (end.kind === 'hung') return `did not end within ${options.timeout} s`
  return end.kind === 'broken' ? `broke: ${end.line}` : `ended before the command did: ${end.reason}`
}

async function main(): Promise<number> {
  const job = script()
  fetch()
  const { kernel } = options
  if (!existsSync(join(VM, `kernel-${kernel}`))) throw new Error(`no kernel "${kernel}" in .cache/vm`)
  const version = readFileSync(join(VM, `kernel-${kernel}/version`), 'utf8').trim()
  const started = Date.now()
  const progress = (text: string): void => {
    console.error(`vm: Linux ${version} ${text}, ${((Date.now() - started) / 1000).toFixed(1)} s`)
  }
  const base = baseLayer(text => console.error(`vm: ${text}`))
  const extra = options.systemd ? [...options.with, SYSTEMD, 'packaging'] : options.with
  const repository = repositoryLayer(extra)
  for (const last of [false, true]) {
    const name = `${kernel}-${process.pid}${last ? '-again' : ''}`
    const [log, tar] = [join(VM, `log-${name}.txt`), join(VM, `out-${name}.tar`)]
    try {
      const end = await boot({
        kernel,
        script: job,
        mark: randomUUID(),
        systemd: options.systemd,
        base,
        repository,
        timeoutMs: Number(options.timeout) * 1000,
        allowOops: options['allow-oops'],
        log,
        tar,
        output: bytes => process.stdout.write(bytes),
        progress,
      })
      if (end.kind === 'exit') {
        progress(`ended with status ${end.status}`)
        rmSync(log, { force: true })
        unpack(tar)
        return end.status
      }
      if (process.exitCode !== undefined) {
        rmSync(log, { force: true })
        return FAILED // The status that was set stays.
      }
      progress(explain(end))
      console.error(`vm: the kernel's messages are in ${relative(process.cwd(), log)}`)
      // Two emulated processors, once in some hundred boots, run into code that one of them is
      // changing.
      if (end.kind !== 'broken' || last) return FAILED
      console.error('vm: once more')
    } finally {
      rmSync(tar, { force: true })
    }
  }
  return FAILED
}

function unpack(tar: string): void {
  if (options.out === undefined || statSync(tar).size === 0) return
  mkdirSync(options.out, { recursive: true })
  execFileSync('tar', ['-x', '--no-same-owner', '-C', options.out, '-f', tar])
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop(130))
// Who read our output, such as `head`, wants no more.
process.stdout.on('error', () => stop(141))

/** Whatever waits for the VM cleans up when it has ended. */
function stop(status: number): void {
  process.exitCode = status
  kill()
}

main().then(
  status => {
    process.exitCode ??= status
  },
  (error: Error) => {
    console.error(`vm: ${error.message}`)
    process.exitCode = FAILED
  },
)
