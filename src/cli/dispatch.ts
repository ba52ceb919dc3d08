/** Runs the command that the words of the command line name, and tells of its failure. */
import { CommanderError } from 'commander'
import { EXIT, UsageError } from '../errors.ts'
import type { Command } from './command.ts'
import { requireLinux } from './elsewhere.ts'
import { reportError } from './failure-report.ts'
import { Interrupted } from './interrupted.ts'
import { complain, note, print, speak, spoken, terminalWidth } from './output.ts'
import { commandTree } from './tree.ts'

/** The exit status. */
export async function dispatch(words: readonly string[], version: string): Promise<number> {
  let status: number = EXIT.ok
  const tree = commandTree(of => {
    status = of
  }, version)
  tree.hook('preAction', (_, command) => {
    speak(command.optsWithGlobals())
    requireLinux(command as Command, tree)
  })
  for (const command of tree.withAllBelow()) printByUs(command, () => tree.asksForJson)
  // An error that no command could catch, such as one in a callback: nothing goes on after it.
  process.on('uncaughtException', error => {
    process.exit(fail(error, tree.asksForJson))
  })
  const unanswered = (): void => {
    fail(new Error('it ended before there was an answer'), tree.asksForJson)
  }
  process.once('beforeExit', unanswered)
  // An error that is told as JSON is the last line.
  const tellTime = (): void => {
    if (spoken().verbose === true) note(`took ${Math.round(performance.now())} ms`)
  }
  try {
    await tree.parseAsync(words, { from: 'user' })
    tellTime()
  } catch (error) {
    tellTime()
    status = fail(error, tree.asksForJson)
  }
  process.off('beforeExit', unanswered)
  return status
}

/** Tells what failed, and gives the exit status for it. */
export function fail(error: unknown, json: boolean): number {
  try {
    if (error instanceof CommanderError) return reportUsage(error, json)
  } catch (failed) {
    return fail(failed, json)
  }
  if (error instanceof Interrupted) return error.exitStatus
  return reportError(error, json)
}

/**
 * Tells what is wrong with the command line. Help is printed already, both if it was asked for and
 * if no command was named: the messages of these two are in parentheses.
 */
function reportUsage({ exitCode, message }: CommanderError, json: boolean): number {
  if (exitCode === 0) return EXIT.ok
  // It quotes the command line; the only line break of its own is before a suggestion.
  const [, what, suggestion] = /^error: (.*?)(?:\n\((Did you mean .*)\))?$/s.exec(message.trimEnd()) ?? []
  if (json) reportError(new UsageError(what ?? 'no command is named', { hint: suggestion }), json)
  else if (what !== undefined) complain(`error: ${what}${suggestion === undefined ? '' : ` (${suggestion})`}`)
  return EXIT.usage
}

/** commander prints through us, and exits never. */
function printByUs(command: Command, json: () => boolean): void {
  command.exitOverride().configureOutput({
    writeOut: text => print(...linesOf(text)),
    // The help that is shown if no command is named. With --json that is an error like all others.
    writeErr: text => (json() ? undefined : complain(...linesOf(text))),
    // Told by reportUsage.
    outputError: () => {},
    getOutHelpWidth: () => terminalWidth() ?? HELP_COLUMNS,
    getErrHelpWidth: () => terminalWidth() ?? HELP_COLUMNS,
    getOutHasColors: () => false,
    getErrHasColors: () => false,
  })
}

const HELP_COLUMNS = 100

/** Commander's own text, made of ours and of the command line. */
function linesOf(text: string): string[] {
  return text.replace(/\n$/, '').split('\n')
}
