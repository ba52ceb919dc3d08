/** What `bpftoken run` takes: of its own words, and of those that another command is to read. */
import type { Command } from '../command.ts'
import { anySubject, capabilities, dryRun, path, policy, repeatable, socket } from './options.ts'

export function runOptions(command: Command): Command {
  return command
    .addOption(policy())
    .option(
      '--user <user>',
      'host user it runs as: name, uid or uid:gid (default: who called sudo, else nobody)',
    )
    .option('--host-net', "share the host's network instead of an own one")
    .addOption(path())
    .addOption(repeatable('--cap <name>', 'a further capability inside the namespace', capabilities))
    .addOption(anySubject())
    .option('--identity', 'it sees its own user id, with ambient capabilities, instead of root')
    .addOption(repeatable('--env <name[=value]>', 'a further variable of its environment'))
    .option(
      '--apart',
      "as an ordinary user: in namespaces that are root's, by bpftoken-launchd, if the policy lets it",
    )
    .option('--keep-env', 'all of your environment, instead of a short list')
    .addOption(socket())
    .option('--kill-rest', 'once it has ended, or bpftoken has, kill what it left behind')
    .addOption(dryRun())
    .argument('<command...>', 'the program and its arguments, after --')
    .passThroughOptions()
}
