/** What works on other systems than Linux: commands that ask nothing of a kernel. */
import { NotSupportedError } from '../errors.ts'
import type { Command } from './command.ts'

/** NotSupportedError: the command wants Linux, and this is another system. */
export function requireLinux(command: Command, tree: Command): void {
  if (process.platform === 'linux' || command.worksAnywhere) return
  const others = tree.withAllBelow().filter(({ worksAnywhere }) => worksAnywhere)
  throw new NotSupportedError(`${command.path} works on Linux alone, and this is ${process.platform}`, {
    context: { platform: process.platform },
    hint: `These work here: ${others.map(({ path }) => path).join(', ')}`,
  })
}
