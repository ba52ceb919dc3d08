/**
 * commander's command, which knows before its words are parsed whether they ask for JSON: that they
 * are wrong is then told as JSON, too.
 */
import { Command as Base } from 'commander'

export class Command extends Base {
  #stopsAtOperand = false
  #asksForJson = false

  /** Whether the words of this command, or of one below it, had the option --json. */
  get asksForJson(): boolean {
    return this.#asksForJson || this.commands.some(command => (command as Command).asksForJson)
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
    return super.parseOptions(words)
  }

  /**
   * What is the value of an option, a program to run, or an argument of that, is no option of ours.
   */
  #hasJson(words: readonly string[]): boolean {
    if (!this.options.some(option => option.long === '--json')) return false
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!
      if (word === '--json') return true
      if (word === '--' || (this.#stopsAtOperand && !word.startsWith('-'))) return false
      if (this.options.find(option => option.long === word)?.required === true) i++
    }
    return false
  }
}
