#!/usr/bin/env node
/**
 * The command `bpftoken`. What shells ask when they start is answered before anything else is
 * loaded: commander and the tree of commands come with dispatch.ts.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { print } from './output.ts'

/** As EXIT.failed in src/errors.ts, which is not loaded yet. */
const EXIT_FAILED = 1

const { version } = require('../../package.json') as { version: string }

/** What the build wrote, from the tree of commands; see scripts/gen-cli-docs.ts. */
const COMPLETIONS = path.resolve(__dirname, '../completions')

/** The lines that these words ask for, if they can be known without loading more. */
function knownAnswer(words: readonly string[]): string[] | undefined {
  const [word, shell, ...more] = words
  if (words.length === 1 && (word === '--version' || word === '-V')) return [version]
  if (word !== 'completion' || shell === undefined || !/^[a-z]+$/.test(shell) || more.length > 0)
    return undefined
  try {
    return readFileSync(`${COMPLETIONS}/${shell}`, 'utf8').trimEnd().split('\n')
  } catch {
    return undefined // There is none of that name, or this is no built tree: the command knows.
  }
}

async function main(words: readonly string[]): Promise<number> {
  const answer = knownAnswer(words)
  if (answer === undefined) return (await import('./dispatch.ts')).dispatch(words, version)
  try {
    print(...answer)
    return 0
  } catch (error) {
    return (await import('./dispatch.ts')).fail(error, false)
  }
}

// Fail closed: should Node find nothing left to wait for before the answer is there, nothing was done.
// dispatch.ts tells of that.
process.exitCode = EXIT_FAILED

void main(process.argv.slice(2)).then(status => {
  process.exitCode = status
})
