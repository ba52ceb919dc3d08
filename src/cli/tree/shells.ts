/** What the command line says of itself, to scripts and to shells. */
import { Argument } from 'commander'
import { DOCUMENT_NAMES } from '../../api/names.ts'
import type { Shell } from '../completion.ts'
import { common } from './options.ts'
import type { Part } from './part.ts'

export const shellCommands: Part = (root, act) => {
  common(
    root
      .command('schema')
      .description('the JSON Schema of what a command prints with --json; without a name, all names')
      .addArgument(new Argument('[name]', 'which document').choices(DOCUMENT_NAMES)),
  )
    .example('schema', 'the names of all documents')
    .example('schema policy-check', 'what policy check --json prints')
    .anywhere()
    .action(act(async () => (await import('../commands/schema.ts')).schema))

  common(
    root
      .command('completion')
      .description('print the script that completes the words of bpftoken in a shell')
      .addArgument(new Argument('<shell>', 'which one').choices(['bash', 'zsh', 'fish'])),
    'of errors only: as a JSON document on stderr',
  )
    .example('completion bash > /etc/bash_completion.d/bpftoken', 'for all users of bash')
    .example('completion zsh > ~/.zfunc/_bpftoken', 'for zsh, in a directory of $fpath')
    .example('completion fish > ~/.config/fish/completions/bpftoken.fish', 'for fish')
    .anywhere()
    .action(
      act(async () => {
        const { completion } = await import('../commands/completion.ts')
        return (shell: Shell) => completion(shell, root)
      }),
    )
}
