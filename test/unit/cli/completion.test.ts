/**
 * Completions and manual pages have every command and option, and those who read them take them.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { completionScript, optionsOf, SHELLS, type Shell } from '../../../src/cli/completion.ts'
import { manualPages } from '../../../src/cli/man.ts'
import { commandTree } from '../../../src/cli/tree.ts'
import { Scratch } from '../../helpers/scratch.ts'

const tree = commandTree(() => {}, '0')
const scripts = new Map(SHELLS.map(shell => [shell, completionScript(shell, tree)]))
const pages = manualPages(tree, { version: '0', date: '2026-01-01' })

/** `{ skip: reason }` where the program is not installed. */
function needs(program: string): { skip?: string } {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0
    ? {}
    : { skip: `${program} is not installed` }
}

test('every command and every option is in each completion, and in its manual page', () => {
  for (const command of tree.withAllBelow()) {
    const flags = optionsOf(command).flatMap(({ long, short }) =>
      [long, short].filter(one => one !== undefined),
    )
    assert.ok(flags.includes('--help'), command.path)
    for (const flag of flags) {
      const bare = flag.replace(/^-+/, '')
      const fish = new RegExp(`__bpftoken_at${` ${command.path}`.trimEnd()}'.* -[ls] ${bare}( |$)`)
      const lines = scripts.get('fish')!.split('\n')
      assert.ok(
        lines.some(line => fish.test(line)),
        `fish: ${command.path} ${flag}`,
      )
    }
    const bash = scripts.get('bash')!.split(`    '${command.path}')\n      options='`)[1]?.split("'")[0]
    assert.deepEqual(bash?.split(' ').sort(), flags.sort(), command.path)
    const name = ['_bpftoken', ...command.path.split(' ').filter(Boolean)].join('_')
    const zsh = scripts.get('zsh')!.split(`\n${name}() {`)[1]?.split('\n}')[0] ?? ''
    for (const flag of flags) assert.match(zsh, new RegExp(`'\\*?${flag}[+=]?\\[`), `zsh: ${command.path}`)
    if (command !== tree && command.subcommands.length > 0) continue
    const page = pages.find(
      one => one.name === ['bpftoken', ...command.path.split(' ').filter(Boolean)].join('-'),
    )
    for (const flag of flags)
      assert.ok(page?.text.includes(flag.replaceAll('-', '\\-')), `man: ${command.path} ${flag}`)
    for (const { words } of command.examples)
      assert.ok(page?.text.includes(words.replaceAll('-', '\\-')), words)
  }
})

const CHECKS: Readonly<Record<Shell, readonly [string, ...string[]]>> = {
  bash: ['bash', '-n'],
  zsh: ['zsh', '-n'],
  fish: ['fish', '--no-execute'],
}

for (const shell of SHELLS)
  test(`${shell} takes its completion, and no broken one`, needs(CHECKS[shell][0]), () => {
    using scratch = new Scratch()
    const [program, ...words] = CHECKS[shell]
    const check = (text: string) => spawnSync(program, [...words, scratch.write('completion', text)])
    const { status, stderr } = check(scripts.get(shell)!)
    assert.deepEqual([status, String(stderr)], [0, ''])
    assert.notEqual(check(`${scripts.get(shell)!}\nif (\n`).status, 0)
  })

/** What bash offers for the last of these words. */
function offered(...words: string[]): string[] {
  using scratch = new Scratch()
  const script = scratch.write('completion', scripts.get('bash')!)
  scratch.write('here.o', '')
  const run = `source ${script}; cd ${scratch.path}; COMP_WORDS=(bpftoken "$@"); COMP_CWORD=$#; _bpftoken; printf '%s\\n' "\${COMPREPLY[@]}"`
  const out = execFileSync('bash', ['--norc', '-c', run, 'bash', ...words], { encoding: 'utf8' })
  return out.split('\n').filter(Boolean).sort()
}

test('bash completes commands, options, their values, files, and programs that are run', () => {
  assert.deepEqual(offered('de'), ['delegate', 'deny', 'derive'])
  assert.deepEqual(offered('policy', 'ch'), ['check'])
  assert.deepEqual(offered('--json', 'policy', 'ch'), ['check'])
  assert.deepEqual(offered('policy', 'check', '--max'), ['--max-risk'])
  assert.deepEqual(offered('policy', 'check', '--max-risk', ''), ['critical', 'high', 'low', 'medium'])
  assert.deepEqual(offered('plan', '--format', '=', 'sy'), ['systemd'])
  assert.deepEqual(offered('plan', 'he'), ['here.o'])
  assert.deepEqual(offered('plan', '--loader', 'aya', 'he'), ['here.o'])
  assert.deepEqual(offered('completion', ''), ['bash', 'fish', 'zsh'])
  assert.deepEqual(offered('run', '--policy', 'he'), ['here.o'])
  assert.ok(offered('run', '--policy', 'x', '--', 'ec').includes('echo'))
  assert.deepEqual(offered('run', '--policy', 'x', '--', 'echo', 'he'), ['here.o'])
  assert.deepEqual(offered('no-such', ''), offered(''))
  assert.deepEqual(offered('events', '--pol'), [], 'no option of this command')
})

test('fish completes commands, options and their values', needs('fish'), () => {
  using scratch = new Scratch()
  const script = scratch.write('completion', scripts.get('fish')!)
  const offers = (line: string): string[] =>
    execFileSync('fish', ['--no-config', '-c', `source ${script}; complete -C '${line}'`], {
      encoding: 'utf8',
    })
      .split('\n')
      .flatMap(one => one.split('\t')[0] || [])
  assert.deepEqual(offers('bpftoken de'), ['delegate', 'derive'])
  assert.deepEqual(offers('bpftoken policy check --max'), ['--max-risk'])
  assert.deepEqual(offers('bpftoken completion '), ['bash', 'fish', 'zsh'])
})

for (const [program, ...words] of [
  ['groff', '-man', '-ww', '-z'],
  ['mandoc', '-Tlint', '-Wwarning'],
] as const)
  test(`${program} has nothing to warn of in the manual pages`, needs(program), () => {
    using scratch = new Scratch()
    const lint = (text: string) => {
      const { status, stdout, stderr } = spawnSync(program, [...words, scratch.write('page.1', text)])
      return { status, said: `${stdout}${stderr}` }
    }
    for (const { name, text } of pages) assert.deepEqual(lint(text), { status: 0, said: '' }, name)
    assert.notEqual(lint(`${pages[0]!.text}.NOSUCH\n`).said, '')
  })
