/**
 * Policy text to `Policy`: YAML, then schema, then the words of the running kernel.
 *
 * Imports zod and yaml, 15 ms to load: `await import()` it where a policy is parsed.
 */
import type { z } from 'zod'
import { PolicyError, type PolicyIssue } from '../errors.ts'
import { type PlainDocument, readDocument } from './document.ts'
import { type LocatedPolicy, locatedPolicy, pathText } from './located.ts'
import { maskOf } from './mask-text.ts'
import { nearest } from './nearest.ts'
import { type AllowList, CAPABILITIES, type Policy } from './policy.ts'
import { documentSchema, type PolicyDocument } from './schema.ts'
import { MASK_DOMAINS, type MaskDomain, type Masks, type Vocabulary } from './vocabulary.ts'

export interface ParseOptions {
  /** Names the text in messages: a file name. */
  readonly source: string
  readonly vocabulary: Vocabulary
}

/**
 * The policy in `text`. Throws PolicyError with every issue found, each with path, line and column.
 */
export function parsePolicy(text: string, options: ParseOptions): Policy {
  return parseLocatedPolicy(text, options).policy
}

/** As `parsePolicy`, and keeps the positions. */
export function parseLocatedPolicy(text: string, options: ParseOptions): LocatedPolicy {
  const plain = readDocument(text)
  if (plain.issues.length > 0) throw new PolicyError(options.source, plain.issues)

  // One document is checked before code for it would be generated.
  const checked = documentSchema.safeParse(plain.value, { jitless: true })
  if (!checked.success) {
    const issues = checked.error.issues.flatMap(issue => schemaIssues(issue, plain))
    // Wrong words are worth saying together with wrong fields: one round of corrections, not two.
    const words = resolveMasks(rightsOf(plain.value), options.vocabulary, plain).issues
    throw new PolicyError(options.source, inOrder([...issues, ...words]))
  }

  const { masks, issues } = resolveMasks(checked.data.spec.rights, options.vocabulary, plain)
  if (issues.length > 0) throw new PolicyError(options.source, inOrder(issues))
  return locatedPolicy(policyOf(checked.data, masks), plain.positions)
}

function inOrder(issues: readonly PolicyIssue[]): PolicyIssue[] {
  return [...issues].sort((a, b) => a.line - b.line || a.col - b.col)
}

function schemaIssues(issue: z.core.$ZodIssue, plain: PlainDocument): PolicyIssue[] {
  const path = issue.path as (string | number)[]
  if (issue.code === 'unrecognized_keys') {
    const fields = fieldsAt(path)
    return issue.keys.map(key => {
      const inner = [...path, key]
      return withSuggestion(
        { path: pathText(inner), ...plain.keyAt(inner), message: 'unknown field' },
        nearest(key, fields),
      )
    })
  }
  const at = { path: pathText(path), ...plain.valueAt(path) }
  if (issue.code === 'invalid_value') {
    const words = issue.values.map(String)
    const given = dig(plain.value, path)
    if (given === undefined) return [{ ...at, message: `missing; expected ${words.join(' or ')}` }]
    const word = typeof given === 'string' ? given.toLowerCase().replace(/^cap_/, '') : ''
    return [withSuggestion({ ...at, message: `expected ${words.join(' or ')}` }, nearest(word, words))]
  }
  if (issue.code === 'invalid_type' && dig(plain.value, path) === undefined) {
    return [{ ...at, message: `missing; expected ${issue.expected}` }]
  }
  return [{ ...at, message: issue.message.replace(/^Invalid input: /, '') }]
}

function withSuggestion(issue: PolicyIssue, suggestion: string | undefined): PolicyIssue {
  return suggestion === undefined ? issue : { ...issue, suggestion }
}

/** The names of the fields that the schema has at `path`. */
function fieldsAt(path: readonly (string | number)[]): string[] {
  let schema: unknown = documentSchema
  for (const segment of path) {
    schema = unwrapped(schema)
    const def = definition(schema)
    schema = typeof segment === 'number' ? def?.element : def?.shape?.[segment]
  }
  return Object.keys(definition(unwrapped(schema))?.shape ?? {})
}

/** The parts of a zod schema's own description that the walk needs. */
interface SchemaDefinition {
  readonly innerType?: unknown
  readonly element?: unknown
  readonly shape?: Readonly<Record<string, unknown>>
}

function definition(schema: unknown): SchemaDefinition | undefined {
  return (schema as { def?: SchemaDefinition } | undefined)?.def
}

/** Without `optional`, `default` and `prefault`. */
function unwrapped(schema: unknown): unknown {
  let inner = schema
  while (definition(inner)?.innerType !== undefined) inner = definition(inner)?.innerType
  return inner
}

function dig(value: unknown, path: readonly (string | number)[]): unknown {
  let inner = value
  for (const segment of path) {
    if (typeof inner !== 'object' || inner === null || !Object.hasOwn(inner, segment)) return undefined
    inner = (inner as Record<string | number, unknown>)[segment]
  }
  return inner
}

type WordLists = Partial<Record<MaskDomain, readonly (string | number)[]>>

/** The word lists of a document that did not pass the schema, as far as they are lists of words. */
function rightsOf(value: unknown): WordLists {
  const lists: WordLists = {}
  for (const domain of MASK_DOMAINS) {
    const list = dig(value, ['spec', 'rights', domain])
    const isWords = Array.isArray(list) && list.every(word => typeof word === 'string')
    if (isWords) lists[domain] = list
  }
  return lists
}

function resolveMasks(
  lists: WordLists,
  vocabulary: Vocabulary,
  plain: PlainDocument,
): { masks: Masks; issues: PolicyIssue[] } {
  const masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  const issues: PolicyIssue[] = []
  for (const domain of MASK_DOMAINS) {
    const result = maskOf(vocabulary, domain, lists[domain] ?? [])
    if (result.ok) {
      masks[domain] = result.mask
      continue
    }
    for (const { index, message, suggestion } of result.issues) {
      const path = ['spec', 'rights', domain, index]
      issues.push(withSuggestion({ path: pathText(path), ...plain.valueAt(path), message }, suggestion))
    }
  }
  return { masks, issues }
}

function policyOf(document: PolicyDocument, masks: Masks): Policy {
  const { metadata, spec } = document
  const { lifetime, ...limits } = spec.limits
  return {
    name: metadata.name,
    ...(metadata.description === undefined ? {} : { description: metadata.description }),
    ...(spec.subjects === undefined ? {} : { subjects: spec.subjects }),
    approval: spec.approval,
    ...(spec.launch === 'none' ? {} : { launch: spec.launch }),
    rights: { masks, capabilities: CAPABILITIES.filter(name => spec.rights.capabilities.includes(name)) },
    limits: withoutUndefined({ ...limits, lifetimeSec: lifetime }),
    programs: { digests: allowList(spec.programs.digests) },
    targets: { functions: allowList(spec.targets.functions) },
    sharing: spec.sharing,
    revocable: spec.revocable,
    network: spec.network,
    cgroups: spec.cgroups,
    guard: spec.guard,
    derive: spec.derive,
    mode: spec.mode,
    events: spec.events,
  }
}

/**
 * In a document the empty list means any. Sorted and without repetition, so that equal lists look
 * equal.
 */
function allowList(items: readonly string[]): AllowList {
  return items.length === 0 ? 'any' : [...new Set(items)].sort()
}

function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as never
}
