/**
 * commander's command with three additions: details and examples, for the help and the man page
 * alike, and whether it works on other systems than Linux.
 *
 * It knows before parsing whether its words ask for JSON, so that wrong words are told as JSON,
 * too. And it names a misspelt word before it names a missing one.
 */
import { Command as Base } from 'commander'
import { nearest } from '../policy/nearest.ts'

export interface Example {
  /** What is typed, after `bpftoken`. */
  readonly words: string
  readonly does: string
}

export class Command extends Base {
  readonly examples: Example[] = []
  readonly paragraphs: string[] = []
  /** Whether it asks nothing of a kernel. */
  worksAnywhere = false
  #stopsAtOperand = false
  #asksForJson = false

  /** Whether the words of this command, or of one below it, had the option --json. */
  get asksForJson(): boolean {
    return this.#asksForJson || this.subcommands.some(command => command.asksForJson)
  }

  get subcommands(): readonly Command[] {
    return this.commands as readonly Command[]
  }

  /** This command and all below it. */
  withAllBelow(): Command[] {
    return [this, ...this.subcommands.flatMap(command => command.withAllBelow())]
  }

  /** `policy check`; of the root, nothing. */
  get path(): string {
    const above = (this.parent as Command | null)?.path
    return above === undefined ? '' : `${above} ${this.name()}`.trim()
  }

  /** Whether its words are a program to run, from the first that is no option. */
  get runsProgram(): boolean {
    return this.#stopsAtOperand
  }

  /** More than the description says; each is a paragraph. */
  details(...paragraphs: readonly string[]): this {
    this.paragraphs.push(...paragraphs)
    return this
  }

  example(words: string, does: string): this {
    this.examples.push({ words, does })
    return this
  }

  anywhere(): this {
    this.worksAnywhere = true
    return this
  }

  override createCommand(name?: string): Command {
    return new Command(name)
  }

  override passThroughOptions(passThrough = true): this {
    this.#stopsAtOperand = passThrough
    return super.passThroughOptions(passThrough)
  }

  override parseOptions(words: string[]): ReturnType<Base['parseOptions']> {
    this.#asksForJson = this.#hasJson(words)
    const parsed = super.parseOptions(words)
    this.#refuseUnknown(parsed)
    return parsed
  }

  override helpInformation(...context: Parameters<Base['helpInformation']>): string {
    const paragraphs = this.paragraphs.map(paragraph => `\n${paragraph}\n`)
    const examples = this.examples.map(({ words, does }) => `  bpftoken ${words}\n      ${does}\n`)
    return [
      super.helpInformation(...context),
      ...paragraphs,
      ...(examples.length === 0 ? [] : ['\nExamples:\n', ...examples]),
    ].join('')
  }

  /**
   * The value of an option, a program to run, and an argument of that program are no options of
   * ours. A command below looks at its own words.
   */
  #hasJson(words: readonly string[]): boolean {
    if (!this.options.some(option => option.long === '--json')) return false
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!
      // With a value it is an error, and that error is told as JSON.
      if (word === '--json' || word.startsWith('--json=')) return true
      if (word === '--' || (this.#stopsAtOperand && !word.startsWith('-'))) return false
      if (this.commands.some(command => command.name() === word)) return false
      if (this.options.find(option => option.long === word)?.required === true) i++
    }
    return false
  }

  /** Runs before commander names a missing option, because the misspelt word may be that option. */
  #refuseUnknown({ operands, unknown }: ReturnType<Base['parseOptions']>): void {
    const [word] = operands
    if (this.commands.length > 0) {
      const names = this.commands.map(command => command.name())
      if (word === undefined || word === 'help' || names.includes(word)) return
      this.#unknown('command', word, names)
    }
    if (unknown[0] === undefined || unknown.some(one => one === '--help' || one === '-h')) return
    const long = this.options.flatMap(option => option.long ?? [])
    this.#unknown('option', unknown[0], [...long, '--help'])
  }

  #unknown(what: string, word: string, known: readonly string[]): never {
    const meant = nearest(word, known)
    this.error(`error: unknown ${what} '${word}'${meant === undefined ? '' : `\n(Did you mean ${meant}?)`}`, {
      code: 'commander.unknown',
    })
  }
}
