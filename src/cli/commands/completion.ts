/** bpftoken completion: the script that completes its words in a shell. */
import { EXIT } from '../../errors.ts'
import type { Command } from '../command.ts'
import { completionScript, type Shell } from '../completion.ts'
import { print } from '../output.ts'

/** Where the build wrote them, main.ts prints them without coming here. */
export function completion(shell: Shell, tree: Command): number {
  print(...completionScript(shell, tree).trimEnd().split('\n'))
  return EXIT.ok
}
