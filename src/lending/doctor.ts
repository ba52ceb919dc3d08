/**
 * What this machine can delegate: each fact is proved by doing it, not read off a version.
 *
 * `required` facts decide whether delegation works here; the others matter for the guard or for
 * some loaders.
 */
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { release } from 'node:os'
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { type DelegateGuard, delegate } from '../delegation/delegate.ts'
import { ask } from '../delegation/execute.ts'
import { Sandbox } from '../delegation/sandbox.ts'
import { openTarget } from '../delegation/target.ts'
import { kernelHasTokens, scratchBpffs } from '../delegation/token-support.ts'
import { runningVocabulary } from '../delegation/vocabulary.ts'
import { assemble, exit, mov64, R0 } from '../ebpf/asm/insn.ts'
import { Btf } from '../ebpf/btf/btf.ts'
import { effectiveCapabilities, INITIAL_USER_NAMESPACE } from '../ebpf/rights.ts'
import { BpftokenError, SyscallError } from '../errors.ts'
import { DEFAULT_TERMS } from '../policy/policy.ts'
import { hasBit } from '../policy/vocabulary.ts'
import { progLoad } from '../sys/bpf.ts'
import { Fd } from '../sys/fd.ts'
import { procFields } from '../sys/proc-file.ts'
import { bpf_attach_type, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { errnoName } from '../uapi/errno.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'

export interface Fact {
  readonly name: string
  readonly ok: boolean
  readonly required: boolean
  readonly detail: string
  readonly remedy?: string
}

type Finding = Omit<Fact, 'name' | 'required'>

interface Check {
  readonly name: string
  readonly required: boolean
  readonly look: (how: Examination) => Finding | Promise<Finding>
}

export interface Examination {
  /** Makes a policy known to the guard that is installed, for the delegation that is tried. */
  readonly lend?: ((policy: typeof SCRATCH) => DelegateGuard & Disposable) | undefined
  /** Whether a guard enforces. */
  readonly guarded?: boolean
}

const good = (detail: string): Finding => ({ ok: true, detail })
const bad = (detail: string, remedy: string): Finding => ({ ok: false, detail, remedy })

/**
 * Runs every check; one that fails in an unforeseen way is a failed fact, not the end of the list.
 */
export async function examine(
  report: (fact: Fact) => void = () => {},
  how: Examination = {},
): Promise<Fact[]> {
  const facts: Fact[] = []
  for (const { name, required, look } of CHECKS) {
    let finding: Finding
    try {
      finding = await look(how)
    } catch (error) {
      if (!(error instanceof Error)) throw error
      finding = bad(error.message, (error instanceof BpftokenError && error.hint) || 'See the message')
    }
    const fact = { name, required, ...finding }
    facts.push(fact)
    report(fact)
  }
  return facts
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined // Not there on this kernel, or not ours to read: each check says what that means.
  }
}

function statusField(name: string): string | undefined {
  return procFields(readFileSync('/proc/self/status', 'utf8')).get(name)
}

function kernel(): Finding {
  return good(`Linux ${release()}, ${process.arch}`)
}

function btf(): Finding {
  const { cmds, maps, progs, attachs } = runningVocabulary()
  const count = (domain: typeof cmds): number => domain.nameOfBit.size
  return good(
    `${VMLINUX_BTF}: ${count(cmds)} commands, ${count(maps)} map types, ${count(progs)} program types, ${count(attachs)} attach types`,
  )
}

function initialUserNamespace(): Finding {
  const own = readlinkSync('/proc/self/ns/user')
  if (own === INITIAL_USER_NAMESPACE) return good('the initial user namespace')
  return bad(
    `${own} is not the initial user namespace`,
    'Enable delegation outside of containers, on the host',
  )
}

function capabilities(): Finding {
  const held = effectiveCapabilities()
  const needed = ['SYS_ADMIN', 'SYS_PTRACE', 'SETUID', 'SETGID', 'BPF'] as const
  const missing = needed.filter(name => !hasBit(held, CAPABILITIES[`CAP_${name}`]))
  if (missing.length === 0) return good(`CAP_${needed.join(', CAP_')}`)
  return bad(`CAP_${missing.join(', CAP_')} missing`, 'Run as root, e.g. with sudo')
}

function seccomp(): Finding {
  const mode = statusField('Seccomp')
  if (mode === '0') return good('no filter')
  return bad(
    'a seccomp filter is active and may refuse bpf(2), fsopen(2) or setns(2)',
    'Run outside of the sandbox',
  )
}

function bpffs(): Finding {
  scratchBpffs().close()
  return good('can be created')
}

function tokens(): Finding {
  if (kernelHasTokens()) return good('BPF_TOKEN_CREATE is known')
  return bad('this kernel has no BPF tokens', 'Run Linux 6.9 or newer')
}

/** All of it, in a namespace of our own that is gone afterwards: delegate, make a token, use it. */
async function endToEnd({ lend }: Examination): Promise<Finding> {
  const vocabulary = runningVocabulary()
  using sandbox = await Sandbox.start({
    command: ['/bin/true'],
    uid: 65534,
    gid: 65534,
    network: 'own',
    capabilities: ['bpf'],
    stdio: ['ignore', 'ignore', 'ignore'],
  })
  using target = openTarget(sandbox.pid)
  using guard = lend?.(SCRATCH)
  const { path } = await delegate(SCRATCH, target, vocabulary, { guard })
  try {
    await ask(target, [{ op: 'MAKE_TOKEN', text: [path] }, { op: 'MAKE_MAP' }])
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return bad(
      `${error.op} in a user namespace: ${error.errnoName}`,
      'A security module may refuse it: see the audit log',
    )
  }
  return good('delegated, made a token, and made a map with it in a scratch user namespace')
}

/** Just enough to make one array map. */
const SCRATCH = {
  ...DEFAULT_TERMS,
  name: 'doctor',
  rights: {
    masks: { cmds: 1n, maps: 1n << BigInt(bpf_map_type.BPF_MAP_TYPE_ARRAY), progs: 0n, attachs: 0n },
    capabilities: ['bpf'],
  },
} as const

function userNamespaces(): Finding {
  const max = readText('/proc/sys/user/max_user_namespaces')
  const mounts = readText('/proc/sys/user/max_mnt_namespaces')
  if (max === '0' || mounts === '0')
    return bad(`user.max_user_namespaces=${max}, user.max_mnt_namespaces=${mounts}`, 'Raise them with sysctl')
  return good(`user.max_user_namespaces=${max}`)
}

function mountPoint(): Finding {
  if (existsSync(DEFAULT_PATH)) return good(DEFAULT_PATH)
  return bad(`${DEFAULT_PATH} does not exist`, 'Mount sysfs at /sys, or name another directory with --path')
}

function unprivilegedBpf(): Finding {
  const value = readText('/proc/sys/kernel/unprivileged_bpf_disabled')
  if (value === '0')
    return bad(
      'kernel.unprivileged_bpf_disabled=0: everybody may load socket filters without any token',
      'sysctl kernel.unprivileged_bpf_disabled=2',
    )
  return good(`kernel.unprivileged_bpf_disabled=${value}`)
}

function perfParanoid(): Finding {
  const value = readText('/proc/sys/kernel/perf_event_paranoid')
  if (Number(value) <= 2)
    return good(`kernel.perf_event_paranoid=${value}: tracepoints of own tasks can be attached`)
  return bad(
    `kernel.perf_event_paranoid=${value}: a token cannot serve for perf events`,
    'Only if workloads need them: sysctl kernel.perf_event_paranoid=2',
  )
}

function lsmList(): Finding {
  const list = readText('/sys/kernel/security/lsm')
  if (list === undefined)
    return bad(
      '/sys/kernel/security/lsm cannot be read',
      'mount -t securityfs none /sys/kernel/security; a kernel without it has no security modules',
    )
  if (list.split(',').includes('bpf')) return good(list)
  return bad(`${list}: without bpf`, 'Boot with bpf in the lsm= kernel parameter, for the guard')
}

/** A program for the hook that the guard needs most, never attached. */
async function lsmPrograms(): Promise<Finding> {
  const btfBytes = readFileSync(VMLINUX_BTF)
  const [id] = Btf.parse(btfBytes).find('bpf_lsm_bpf_token_create', 'func')
  if (id === undefined)
    return bad(
      'this kernel has no hook bpf_token_create',
      'For the guard: Linux 6.9 or newer with CONFIG_BPF_LSM=y',
    )
  const { bytes, insns } = assemble([mov64(R0, 0), exit()])
  const log = new Uint8Array(4096)
  const { result } = await progLoad(
    {
      prog_type: bpf_prog_type.BPF_PROG_TYPE_LSM,
      expected_attach_type: bpf_attach_type.BPF_LSM_MAC,
      attach_btf_id: id,
      insn_cnt: insns.length,
      log_level: 1,
      log_size: log.length,
    },
    { insns: bytes, license: new TextEncoder().encode('Dual BSD/GPL\0'), log_buf: log },
  )
  if (result >= 0) {
    new Fd(result).close()
    return good('can be loaded')
  }
  const said = new TextDecoder()
    .decode(log.subarray(0, log.indexOf(0)))
    .trim()
    .split('\n')[0]
  return bad(
    `refused with ${errnoName(result)}${said ? `: ${said}` : ''}`,
    'The guard cannot run here; policies that need it are refused unless they say guard: optional. Use a kernel with CONFIG_BPF_LSM=y and without lockdown',
  )
}

function guardEnforces({ guarded }: Examination): Finding {
  if (guarded === true) return good('enforces: it refused the mount option that is reserved for asking')
  return bad(
    'is not installed: limits, expiry and revocation are not enforced',
    'Where LSM programs can be loaded: bpftoken guard install',
  )
}

const CHECKS: readonly Check[] = [
  { name: 'kernel', required: false, look: kernel },
  { name: 'type information (BTF)', required: true, look: btf },
  { name: 'user namespace', required: true, look: initialUserNamespace },
  { name: 'capabilities', required: true, look: capabilities },
  { name: 'seccomp', required: false, look: seccomp },
  { name: 'bpffs', required: true, look: bpffs },
  { name: 'BPF tokens', required: true, look: tokens },
  { name: 'user namespace limits', required: true, look: userNamespaces },
  { name: 'default mount point', required: false, look: mountPoint },
  { name: 'delegation end to end', required: true, look: endToEnd },
  { name: 'unprivileged BPF', required: false, look: unprivilegedBpf },
  { name: 'perf events', required: false, look: perfParanoid },
  { name: 'security modules', required: false, look: lsmList },
  { name: 'LSM programs', required: false, look: lsmPrograms },
  { name: 'guard', required: false, look: guardEnforces },
]
