/** A plan as flags of `podman run` and `docker run`, which have most of them in common. Pure. */
import { shellWord } from '../../ebpf/printable.ts'
import type { RightsPlan } from '../plan.ts'
import { comments, heading } from './comments.ts'
import { capabilityWords, type FormatFacts } from './container.ts'

/** The command with one flag a line, to which image and arguments are added. */
export function runCommand(
  plan: RightsPlan,
  { seccomp }: FormatFacts,
  program: string,
  own: readonly string[],
): string[] {
  const flags = [
    ...own,
    ...capabilityWords(plan).map(name => `--cap-add=${name}`),
    ...(seccomp.is === 'made' ? [`--security-opt=seccomp=${shellWord(seccomp.path)}`] : []),
  ]
  return [...comments([heading(plan)]), `${program} run \\`, ...flags.map(flag => `  ${flag} \\`), '  IMAGE']
}
