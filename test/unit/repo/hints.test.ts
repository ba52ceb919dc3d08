/**
 * Libraries speak no command line: the words with commands and options of ours are in src/cli,
 * which has some for every reason that a library gives, and in the daemon's program.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { test } from 'node:test'

const SRC = resolve(__dirname, '../../../src')

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap(entry =>
    entry.isDirectory() ? sources(join(dir, entry.name)) : [join(dir, entry.name)],
  )
}

const CLI = sources(join(SRC, 'cli'))
  .map(file => readFileSync(file, 'utf8'))
  .join('\n')
const COMMANDS = [...new Set([...CLI.matchAll(/\.command\('([\w-]+)/g)].map(([, name]) => name!))]
const OPTIONS = [...new Set([...CLI.matchAll(/['( ]--([a-z][a-z-]+)/g)].map(([, name]) => name!))]

/** Options of other programs that have the name of one of ours. */
const OF_OTHERS = [
  /unshare --mount/g,
  /'ps', '--all', '--no-trunc', '--format', 'json'/g,
  /systemctl --user --machine/g,
]

/** What a text says of our command line. Comments count, too. */
function spoken(text: string): string[] {
  const own = OF_OTHERS.reduce((rest, theirs) => rest.replace(theirs, ''), text)
  return [
    ...own.matchAll(new RegExp(`bpftoken (?:${COMMANDS.join('|')})\\b`, 'g')),
    ...own.matchAll(new RegExp(`(?<![\\w-])--(?:${OPTIONS.join('|')})(?![\\w-])`, 'g')),
    ...own.matchAll(/\bUsageError\b/g),
  ].map(([words]) => words)
}

test('no library names a command or an option of ours, or throws UsageError', () => {
  assert.ok(COMMANDS.length >= 15 && OPTIONS.length >= 15, `${COMMANDS} ${OPTIONS}`)
  const files = sources(SRC).filter(
    file => !/^(cli\/|(daemon|nri)\/(main|options)\.ts$|errors\.ts$)/.test(relative(SRC, file)),
  )
  assert.ok(files.length > 100)
  assert.deepEqual(
    files.flatMap(file =>
      spoken(readFileSync(file, 'utf8')).map(words => `${relative(SRC, file)}: ${words}`),
    ),
    [],
  )
})

test('spoken() finds what a hint must not say, and leaves alone what is of others', () => {
  for (const [text, found] of [
    ["hint: 'Install it: bpftoken guard install'", ['bpftoken guard']],
    ["'or name another with --path'", ['--path']],
    ["'(no --host-net)'", ['--host-net']],
    ['throw new UsageError(x)', ['UsageError']],
    ["'Docker, Podman: --cap-add BPF'", []],
    ["'mount -t proc proc /proc (unshare --mount)'", []],
    ["'the bpftoken executor'", []],
  ] as const)
    assert.deepEqual(spoken(text), found, text)
})
