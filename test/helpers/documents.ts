/** What commands print with --json, held to the schemas that are published. */
import assert from 'node:assert/strict'
import { DOCUMENT_NAMES, type DocumentName } from '../../src/api/names.ts'
import { SCHEMAS } from '../../src/api/schema.ts'

/** The name of the schema for what these words of a command line print. */
export function documentOf(words: readonly string[]): DocumentName {
  const named = words.filter(word => !word.startsWith('-'))
  const path = [named.slice(0, 2).join('-'), named[0]!].find(name => isName(name))
  const variants = ['dry-run', 'masks', 'check', 'tree', 'watch', 'remove', 'suggest'].filter(option =>
    words.includes(`--${option}`),
  )
  const name = [path ?? named[0], ...variants].join('-')
  assert.ok(isName(name), `no document ${name} of ${words.join(' ')}`)
  return name
}

function isName(name: string): name is DocumentName {
  return (DOCUMENT_NAMES as readonly string[]).includes(name)
}

/** Parses the text, which must be exactly one document. */
export function checkedDocument(name: DocumentName, text: string): unknown {
  const value: unknown = JSON.parse(text)
  const { error } = SCHEMAS[name].safeParse(value)
  assert.equal(error?.message, undefined, `${name}: ${text.slice(0, 2000)}`)
  return value
}
