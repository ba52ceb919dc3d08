/**
 * A policy as the text of a document, with a comment for each right; and the comments that such a
 * text has. Plans, recordings and merged policies are all written here. Pure. What is left out has
 * its default.
 */
import type { Positions } from './located.ts'
import { hexMask, maskOf, wordsOf } from './mask-text.ts'
import { DEFAULT_TERMS, type Policy, type Rights } from './policy.ts'
import { formatDuration, formatSize } from './quantity.ts'
import { ANY_MASK, bitsOf, MASK_DOMAINS, type MaskDomain, type Vocabulary } from './vocabulary.ts'

/** The lists of rights in a document. */
export const RIGHT_LISTS = [...MASK_DOMAINS, 'capabilities'] as const
export type RightList = (typeof RIGHT_LISTS)[number]

/** The comment of a right; undefined: none. A word is one of `rightWords`. */
export type CommentOf = (list: RightList, word: string) => string | undefined

const MAX_COMMENT_CHARS = 240
/** Controls, separators of lines, and what changes the direction of text. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]+/gu

/** One word for each bit: its name, or a mask where this kernel has no name for it; or `any`. */
export function rightWords({ rights }: Policy, list: RightList, vocabulary: Vocabulary): string[] {
  if (list === 'capabilities') return [...rights.capabilities]
  return maskWords(rights.masks[list], list, vocabulary)
}

function maskWords(mask: bigint, domain: MaskDomain, vocabulary: Vocabulary): string[] {
  if (mask === ANY_MASK) return ['any']
  const { known } = vocabulary[domain]
  const nameless = bitsOf(mask & ~known).map(bit => hexMask(1n << BigInt(bit)))
  return [...wordsOf(vocabulary, domain, mask & known).words, ...nameless]
}

/** Lines of a document that reads back as exactly this policy. */
export function policyYaml(policy: Policy, vocabulary: Vocabulary, commentOf: CommentOf): string[] {
  const { name, description, subjects, limits, programs, targets, sharing, derive } = policy
  const lists = RIGHT_LISTS.flatMap(list => {
    const words = rightWords(policy, list, vocabulary)
    if (words.length === 0) return [`    ${list}: []`]
    return [`    ${list}:`, ...words.map(word => `      - ${word}${commentText(commentOf(list, word))}`)]
  })
  const { mapBytes, lifetimeSec, ...counts } = limits
  const quantities = [
    ...Object.entries(counts).map(([field, value]) => `    ${field}: ${value}`),
    ...(mapBytes === undefined ? [] : [`    mapBytes: ${formatSize(mapBytes)}`]),
    ...(lifetimeSec === undefined ? [] : [`    lifetime: ${formatDuration(lifetimeSec)}`]),
  ]
  const scalars = (['revocable', 'network', 'cgroups', 'guard', 'mode', 'events'] as const)
    .filter(field => policy[field] !== DEFAULT_TERMS[field])
    .map(field => `  ${field}: ${policy[field]}`)
  const object = (field: 'sharing' | 'derive', value: object): string[] =>
    JSON.stringify(value) === JSON.stringify(DEFAULT_TERMS[field]) ? [] : [`  ${field}: ${quoted(value)}`]
  return [
    'apiVersion: bpftoken.dev/v1',
    'kind: DelegationPolicy',
    'metadata:',
    `  name: ${quoted(name)}`,
    ...(description === undefined ? [] : [`  description: ${quoted(description)}`]),
    'spec:',
    ...(subjects === undefined
      ? []
      : subjects.length === 0
        ? ['  subjects: []']
        : ['  subjects:', ...subjects.map(entry => `    - ${quoted(entry)}`)]),
    ...(policy.approval === 'none' ? [] : [`  approval: ${policy.approval}`]),
    ...(policy.launch === undefined ? [] : [`  launch: ${policy.launch}`]),
    '  rights:',
    ...lists,
    ...(quantities.length === 0 ? [] : ['  limits:', ...quantities]),
    ...(programs.digests === 'any' ? [] : [`  programs: ${quoted({ digests: programs.digests })}`]),
    ...(targets.functions === 'any' ? [] : [`  targets: ${quoted({ functions: targets.functions })}`]),
    ...object('sharing', { bindMount: sharing.bindMount, passToken: sharing.passToken }),
    ...object('derive', { allowed: derive.allowed, maxDepth: derive.maxDepth }),
    ...scalars,
  ]
}

/** The same of a policy that says nothing but its rights. */
export function rightsYaml(
  name: string,
  rights: Rights,
  vocabulary: Vocabulary,
  commentOf: CommentOf,
): string[] {
  return policyYaml({ ...DEFAULT_TERMS, name, rights, approval: 'none' }, vocabulary, commentOf)
}

/** What is to be said of a right: of a bit of a mask, or of a capability by its name. */
export interface Remark {
  readonly list: RightList
  readonly right: number | string
  readonly comment: string
}

export function remarksAsComments(remarks: readonly Remark[], vocabulary: Vocabulary): CommentOf {
  const known = new Map<string, string>()
  for (const { list, right, comment } of remarks) {
    const word =
      typeof right === 'string' || list === 'capabilities'
        ? right
        : right < 64
          ? maskWords(1n << BigInt(right), list, vocabulary)[0]
          : undefined
    if (word !== undefined) known.set(`${list} ${word}`, comment)
  }
  return (list, word) => known.get(`${list} ${word}`)
}

/** JSON is YAML, but for some characters that YAML wants escaped. */
function quoted(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g,
    char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function commentText(comment: string | undefined): string {
  if (comment === undefined) return ''
  const line = comment.replace(UNPRINTABLE, '?')
  return ` # ${line.length > MAX_COMMENT_CHARS ? `${line.slice(0, MAX_COMMENT_CHARS - 3)}...` : line}`
}

/**
 * The comments of the rights in a text whose positions are known: those of items that stand on a
 * line of their own, as in `- xdp # program "pass"`.
 */
export function rightComments(text: string, positions: Positions, vocabulary: Vocabulary): CommentOf {
  const lines = text.split(/\r\n|\n|\r/)
  const found = new Map<string, string>()
  for (const [path, { line }] of positions) {
    const list = RIGHT_LISTS.find(name => path.startsWith(`spec.rights.${name}[`))
    const [, word, comment] = /^\s*-\s+["']?([\w]+)["']?\s+#\s*(.*\S)/.exec(lines[line - 1] ?? '') ?? []
    if (list === undefined || comment === undefined) continue
    for (const one of list === 'capabilities' ? [word!] : wordsIn(word!, list, vocabulary))
      found.set(`${list} ${one}`, comment)
  }
  return (list, word) => found.get(`${list} ${word}`)
}

/** The words by which `rightWords` has the bits of a word in a document. */
function wordsIn(word: string, domain: MaskDomain, vocabulary: Vocabulary): string[] {
  const result = maskOf(vocabulary, domain, [word])
  return result.ok ? maskWords(result.mask, domain, vocabulary) : []
}
