/**
 * What this machine can delegate: each fact is proved by doing it, not read off a version.
 *
 * `required` facts decide whether delegation works here; the others matter for the guard or for
 * some loaders.
 */
import { existsSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { ask } from '../delegation/ask.ts'
import { delegate } from '../delegation/delegate.ts'
import { Sandbox } from '../delegation/sandbox.ts'
import { openTarget } from '../delegation/target.ts'
import { kernelHasTokens, scratchBpffs } from '../delegation/token-support.ts'
import { runningVocabulary } from '../delegation/vocabulary.ts'
import { exit, mov64, R0 } from '../ebpf/asm/insn.ts'
import { findAttachTarget } from '../ebpf/kernel/type.ts'
import { Program } from '../ebpf/prog.ts'
import { MAP_TYPES } from '../ebpf/type-names.ts'
import { BpftokenError, NotFoundError, SyscallError, VerifierError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import { probeGuard } from '../guard/install.ts'
import { DEFAULT_TERMS } from '../policy/policy.ts'
import { hasBit } from '../policy/vocabulary.ts'
import { effectiveCapabilities, inInitialUserNamespace, ownNamespace, ownStatus } from '../sys/self.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
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
  /** The one that is installed. */
  readonly guard?: Guard | undefined
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
  if (inInitialUserNamespace()) return good('the initial user namespace')
  return bad(
    `${ownNamespace('user')} is not the initial user namespace`,
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
  const mode = ownStatus('Seccomp')
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
async function endToEnd({ guard }: Examination): Promise<Finding> {
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
  using lender = guard?.lend(SCRATCH)
  const { path } = await delegate(SCRATCH, target, vocabulary, { guard: lender })
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
    masks: { cmds: 1n, maps: 1n << BigInt(MAP_TYPES.number('array')), progs: 0n, attachs: 0n },
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
  return bad(`${DEFAULT_PATH} does not exist`, 'Mount sysfs at /sys, or name another directory')
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
  try {
    using _ = await Program.load({
      type: 'lsm',
      expectedAttachType: 'lsm_mac',
      attachBtfId: findAttachTarget('doctor', { attachType: 'lsm_mac' }, 'bpf_token_create').id,
      insns: [mov64(R0, 0), exit()],
      license: 'Dual BSD/GPL',
      token: null,
    })
    return good('can be loaded')
  } catch (error) {
    if (error instanceof NotFoundError)
      return bad(
        'this kernel has no hook bpf_token_create',
        'For the guard: Linux 6.9 or newer with CONFIG_BPF_LSM=y',
      )
    if (!(error instanceof SyscallError || error instanceof VerifierError)) throw error
    const [said] = error instanceof VerifierError ? error.log : []
    return bad(
      `refused with ${error.errnoName}${said ? `: ${said}` : ''}`,
      'The guard cannot run here; policies that need it are refused unless they say guard: optional. Use a kernel with CONFIG_BPF_LSM=y and without lockdown',
    )
  }
}

function guardEnforces({ guard }: Examination): Finding {
  if (guard !== undefined && probeGuard())
    return good('enforces: it refused the mount option that is reserved for asking')
  return bad(
    'is not installed: limits, expiry and revocation are not enforced',
    'Install it, where LSM programs can be loaded',
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
