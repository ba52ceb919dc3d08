/** A BPF_TOKEN_CREATE that was refused. Of which bpffs it was, nobody has seen. Pure. */
import type { BpfRefusal, Explanation } from './explain.ts'
import type { Situation } from './situation.ts'

type Why = Pick<Explanation, 'cause' | 'needed' | 'found'>

/** `situation`: of who has asked; undefined: it had ended before it was looked at. */
export function explainTokenCreate(situation: Situation | undefined, call: BpfRefusal): Explanation {
  const mount = situation?.mounts.at(-1)
  const { cause, needed, found } = whyOf(situation, call)
  return {
    ...{ call: 'token_create', verdict: 'refused', errno: call.errno, cause, needed, found },
    ...{ capabilities: ['CAP_BPF'], bpffs: mount?.path, notes: [], checks: [] },
    policy: cause === 'capability' && mount !== undefined ? { list: 'capabilities', word: 'bpf' } : undefined,
  }
}

function whyOf(situation: Situation | undefined, { errno, reached }: BpfRefusal): Why {
  if (!reached)
    return {
      ...{ cause: 'seccomp', needed: 'a seccomp filter that lets bpf(2) through' },
      found: `the call ended with ${errno} before the kernel's bpf(2) was asked`,
    }
  switch (errno) {
    case 'EINVAL':
    case 'EBADF':
      return {
        ...{ cause: 'token-place', needed: 'the root directory of a bpffs' },
        found: `another file${saidBy(situation)}`,
      }
    case 'ENOENT':
      return {
        ...{ cause: 'no-delegation', needed: 'a bpffs with a delegation, to make a token of' },
        found: `one that lends nothing${saidBy(situation)}`,
      }
    case 'EOPNOTSUPP':
      return {
        ...{ cause: 'initial-namespace', needed: 'a user namespace that is not the initial one' },
        found: 'the initial one',
      }
    case 'EMFILE':
      return { cause: 'descriptor-limit', needed: 'a free descriptor', found: 'none' }
    case 'EPERM':
      return forWantOfRights(situation)
    default:
      return {
        ...{ cause: 'security-module', needed: 'security modules that allow it' },
        found: `${errno}, which the kernel itself does not say here`,
      }
  }
}

function forWantOfRights(situation: Situation | undefined): Why {
  if (situation === undefined)
    return { cause: 'unknown', needed: 'to look at the process while it lives', found: 'it had ended' }
  if (!situation.capabilities.includes('bpf'))
    return {
      ...{ cause: 'capability', needed: 'CAP_BPF itself in its own user namespace' },
      found: situation.capabilities.join(', ') || 'none that bpf(2) asks for',
    }
  const owner = situation.place?.userNamespace
  return {
    ...{ cause: 'foreign-bpffs', needed: 'a bpffs of the user namespace in which the process is' },
    found: `one of ${owner === situation.userNamespace ? 'another' : (owner ?? 'another')}, and the process is in ${situation.userNamespace}`,
  }
}

function saidBy(situation: Situation | undefined): string {
  const path = situation?.tokenPath
  return path === undefined ? '' : `; LIBBPF_BPF_TOKEN_PATH says ${path}`
}
