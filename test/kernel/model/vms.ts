/**
 * The virtual machines in which cases run: each kernel, once as it is and once where unprivileged
 * programs are let in. With LSM programs in them, security modules refuse, too.
 */
import { spawn } from 'node:child_process'
import { join, relative } from 'node:path'
import { ROOT } from '../../../scripts/tree.ts'

export interface Vm {
  readonly kernel: string
  /** kernel.unprivileged_bpf_disabled */
  readonly sysctl: 0 | 2
}

/** Each kernel once, by what it shows that this machine's does not; then each as it is otherwise. */
const ALL: readonly Vm[] = [
  { kernel: '7', sysctl: 0 },
  { kernel: '6.1', sysctl: 2 },
  { kernel: '6.12', sysctl: 2 },
  { kernel: '7', sysctl: 2 },
  { kernel: '6.12', sysctl: 0 },
  { kernel: '6.1', sysctl: 0 },
]

export const vmText = ({ kernel, sysctl }: Vm): string =>
  `Linux ${kernel}, kernel.unprivileged_bpf_disabled=${sysctl}`

/** All of them, or those that the environment names by KERNEL and SYSCTL. */
export function chosenVms(): readonly Vm[] {
  const { KERNEL, SYSCTL } = process.env
  const chosen = ALL.filter(
    ({ kernel, sysctl }) =>
      (KERNEL === undefined || KERNEL === kernel) && (SYSCTL === undefined || SYSCTL === String(sysctl)),
  )
  if (chosen.length === 0) throw new Error(`KERNEL and SYSCTL are one of: ${ALL.map(vmText).join('; ')}`)
  return chosen
}

export interface VmJob {
  /** A file beside this one, and its arguments. */
  readonly file: string
  readonly args?: readonly string[]
  readonly environment: Readonly<Record<string, string | undefined>>
  /** A path of .cache that goes along, and a folder for what is left in /run/out. */
  readonly along?: string
  readonly out?: string
}

const SET = 'echo "$SYSCTL" > /proc/sys/kernel/unprivileged_bpf_disabled; exec "$@"'
const TIMEOUT_SEC = 7200

/** Runs it there and passes its output on. Gives the exit status, and the lines. */
export async function inVm(vm: Vm, job: VmJob): Promise<{ status: number | null; lines: string[] }> {
  const { file, args = [], environment, along, out } = job
  const variables = Object.entries({ ...environment, SYSCTL: String(vm.sysctl) })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${value}`)
  const child = spawn(
    process.execPath,
    [
      ...['--import', 'tsx', join(ROOT, 'scripts/vm/vm.ts'), '--kernel', vm.kernel],
      ...['--timeout', String(TIMEOUT_SEC)],
      ...(along === undefined ? [] : ['--with', along]),
      ...(out === undefined ? [] : ['--out', out]),
      ...['--', 'env', ...variables, 'sh', '-c', SET, 'sh', 'node', relative(ROOT, join(__dirname, file))],
      ...args,
    ],
    { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] },
  )
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    process.stdout.write(chunk)
  })
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve)
  })
  return { status, lines: text.trim().split(/\r?\n/) }
}
