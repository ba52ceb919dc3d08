/**
 * One value more in the text of a policy, or another value, with every comment and all else of its
 * layout as it was. Pure.
 *
 * The text is spliced where the parser says that a value stands. Whoever writes the result parses it
 * before, and compares: what came out must be that one change.
 */
import {
  Composer,
  isMap,
  isScalar,
  isSeq,
  type Node,
  type Pair,
  Parser,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'
import { DEFAULT_CAPABILITIES, DEFAULT_LIMITS, LIMIT_PATHS, type Policy } from './policy.ts'
import { RIGHT_LISTS } from './policy-yaml.ts'
import { hasWord, type Vocabulary } from './vocabulary.ts'

/** `spec.rights.*` is a list, which gets one word more; all others are values. */
export interface PolicyEdit {
  readonly path: string
  readonly value: string | number | boolean
}

/** Whether a policy has it already, or more than that. */
export function grants(policy: Policy, { path, value }: PolicyEdit, vocabulary: Vocabulary): boolean {
  const { rights, limits, sharing, revocable, network, cgroups } = policy
  const list = RIGHT_LISTS.find(name => path === `spec.rights.${name}`)
  if (list === 'capabilities') return (rights.capabilities as readonly string[]).includes(String(value))
  if (list !== undefined) return hasWord(vocabulary, list, rights.masks[list], String(value))
  for (const field of ['tokens', 'programs', 'maps'] as const)
    if (path === LIMIT_PATHS[field]) return (limits[field] ?? DEFAULT_LIMITS[field]) >= Number(value)
  const values: Readonly<Record<string, unknown>> = {
    'spec.sharing.bindMount': sharing.bindMount,
    'spec.sharing.passToken': sharing.passToken,
    'spec.revocable': revocable,
    'spec.network': network,
    'spec.cgroups': cgroups,
  }
  return values[path] === value
}

/** Undefined: it cannot be told where it is to be written, such as in an alias. */
export function editedText(text: string, { path, value }: PolicyEdit): string | undefined {
  const keys = path.split('.')
  const isList = path.startsWith('spec.rights.')
  const [document] = new Composer().compose(new Parser().parse(text), true, text.length)
  let node: unknown = document?.contents
  for (const [depth, key] of keys.entries()) {
    if (!isMap(node)) return undefined
    const pair: Pair | undefined = node.items.find(({ key: one }) => isScalar(one) && one.value === key)
    if (pair === undefined) {
      const byDefault = path === 'spec.rights.capabilities' ? DEFAULT_CAPABILITIES : []
      const inner = isList ? `[${[...byDefault, value].join(', ')}]` : String(value)
      const rest = keys.slice(depth + 1).reduceRight((text, name) => `{ ${name}: ${text} }`, inner)
      return withPair(text, node, `${key}: ${rest}`)
    }
    node = pair.value
  }
  if (isList) return isSeq(node) ? withItem(text, node, String(value)) : undefined
  if (!isScalar(node) || !hasRange(node)) return undefined
  return spliced(text, node.range[0], node.range[1], String(value))
}

type Ranged = Node & { readonly range: [number, number, number] }

function hasRange(node: unknown): node is Ranged {
  return Array.isArray((node as Node | null)?.range)
}

function spliced(text: string, from: number, to: number, by: string): string {
  return text.slice(0, from) + by + text.slice(to)
}

function withItem(text: string, list: YAMLSeq, word: string): string | undefined {
  if (!hasRange(list)) return undefined
  const last = list.items.at(-1)
  if (list.flow === true) return withinFlow(text, list, last, word)
  if (!hasRange(last)) return undefined
  const [, indent] = /^([ \t]*)-[ \t]/.exec(lineAt(text, last.range[0])) ?? []
  return indent === undefined ? undefined : withLine(text, last.range[1], `${indent}- ${word}`)
}

function withPair(text: string, map: YAMLMap, pair: string): string | undefined {
  if (!hasRange(map)) return undefined
  const last = map.items.at(-1)
  const end = hasRange(last?.value) ? last.value : last?.key
  if (map.flow === true) return withinFlow(text, map, end, pair)
  const first = map.items[0]?.key
  if (!hasRange(first) || !hasRange(end)) return undefined
  const line = lineAt(text, first.range[0])
  const indent = ' '.repeat(first.range[0] - startOfLine(text, first.range[0]))
  // Something else stands before the first key, such as the `-` of a list.
  if (line.slice(0, indent.length).trim() !== '') return undefined
  return withLine(text, end.range[1], indent + pair)
}

/** Between `[` and `]`, or `{` and `}`. */
function withinFlow(text: string, collection: Ranged, last: unknown, item: string): string | undefined {
  if (hasRange(last)) return spliced(text, last.range[1], last.range[1], `, ${item}`)
  const open = collection.range[0]
  const isMapping = text[open] === '{'
  if (!isMapping && text[open] !== '[') return undefined
  return spliced(text, open + 1, open + 1, isMapping ? ` ${item} ` : item)
}

/** A line more, after the one in which a value ends. */
function withLine(text: string, end: number, line: string): string {
  // What is written as a block ends behind its last line.
  const within = text[end - 1] === '\n' ? end - 1 : end
  const next = text.indexOf('\n', within)
  const at = next < 0 ? text.length : text[next - 1] === '\r' ? next - 1 : next
  return spliced(text, at, at, (text.includes('\r\n') ? '\r\n' : '\n') + line)
}

function startOfLine(text: string, at: number): number {
  return text.lastIndexOf('\n', at - 1) + 1
}

function lineAt(text: string, at: number): string {
  const end = text.indexOf('\n', at)
  return text.slice(startOfLine(text, at), end < 0 ? text.length : end)
}
