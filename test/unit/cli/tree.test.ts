/** The tree of commands: what is said of each, and that its examples are commands. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Command } from '../../../src/cli/command.ts'
import { commandTree } from '../../../src/cli/tree.ts'

const tree = (): Command => commandTree(() => {}, '0')
const leaves = (root: Command): Command[] =>
  root.withAllBelow().filter(command => command.subcommands.length === 0)

test('every command takes the common options, and says what it is for, with an example', () => {
  const all = tree().withAllBelow()
  assert.ok(all.length > 20)
  for (const command of all) {
    const long = command.options.map(option => option.long)
    for (const name of ['--json', '--quiet', '--verbose']) assert.ok(long.includes(name), command.path)
    assert.notEqual(command.description(), '', command.path)
    assert.ok(command.examples.length > 0, command.path)
  }
  for (const command of leaves(tree())) {
    for (const argument of command.registeredArguments)
      assert.notEqual(argument.description, '', `${command.path}: ${argument.name()}`)
  }
})

test('every example is a command line that its command takes', () => {
  for (const { path, examples } of tree().withAllBelow())
    for (const { words } of examples) {
      const root = tree()
      const chosen: string[] = []
      for (const command of root.withAllBelow()) {
        command.exitOverride().configureOutput({ outputError: () => {}, writeErr: () => {} })
        if (command.subcommands.length === 0) command.action(() => void chosen.push(command.path))
      }
      // What a shell makes of it.
      root.parse(words.replace(/ [>|] .*/, '').split(' '), { from: 'user' })
      assert.equal(chosen.length, 1, words)
      if (!words.startsWith('run ')) assert.ok(`${chosen[0]} `.startsWith(path), words)
    }
})

test('the same option has the same form everywhere', () => {
  const seen = new Map<string, string>()
  for (const command of leaves(tree()))
    for (const { long, flags, variadic } of command.options) {
      assert.equal(variadic, false, `${command.path} ${flags}`)
      // What is one thing here and another there: the value of a check, a tree of mounts.
      const known = seen.get(long!) ?? flags
      assert.equal(flags, known, command.path)
      seen.set(long!, known)
    }
})

test('every command that has -o says that - is standard output', () => {
  const writing = leaves(tree()).filter(({ options }) => options.some(({ long }) => long === '--output'))
  assert.ok(writing.length > 3)
  for (const { path, options } of writing) {
    const { description } = options.find(({ long }) => long === '--output')!
    assert.match(description, /\B-(?:: print it| is standard output)/, path)
  }
})
