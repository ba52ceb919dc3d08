/** bpftoken policy merge: the least policy that allows what two others allow. */
import { isDeepStrictEqual } from 'node:util'
import { printable } from '../../ebpf/printable.ts'
import { ConflictError, EXIT, InternalError, UsageError } from '../../errors.ts'
import { locatedPolicyFromText, policyFromText } from '../../lending/policy-text.ts'
import { type Conflict, type MergeChoices, mergePolicies } from '../../policy/merge.ts'
import type { Policy } from '../../policy/policy.ts'
import {
  type CommentOf,
  policyYaml,
  RIGHT_LISTS,
  rightComments,
  rightWords,
} from '../../policy/policy-yaml.ts'
import { assessRisk } from '../../policy/risk.ts'
import type { Vocabulary } from '../../policy/vocabulary.ts'
import { print, printJson } from '../output.ts'
import { outputFile, writeOutput } from '../output-file.ts'
import { readPolicyText } from '../policy-file.ts'
import { type KernelName, policyWords } from '../policy-words.ts'

export interface MergeOptions extends MergeChoices {
  output?: string
  kernel?: KernelName
  json?: boolean
}

interface Source {
  readonly file: string
  readonly policy: Policy
  readonly commentOf: CommentOf
}

/** ConflictError: they differ in what does not add up. */
export async function merge(fileA: string, fileB: string, options: MergeOptions): Promise<number> {
  if (fileA === '-' && fileB === '-') throw new UsageError('Only one of the policies can be standard input')
  const vocabulary = await policyWords(options.kernel)
  const sources = [await sourceAt(fileA, vocabulary), await sourceAt(fileB, vocabulary)] as const
  const [a, b] = sources
  const merged = mergePolicies(a.policy, b.policy, options, vocabulary)
  if ('conflicts' in merged) throw conflictError(fileA, fileB, merged.conflicts)
  const { policy } = merged
  const risk = [policy, a.policy, b.policy].map(one => assessRisk(one, vocabulary).level)
  const text = [
    `# What ${[fileA, fileB].map(oneLine).join(' and ')} allow, and no more`,
    ...policyYaml(policy, vocabulary, originOf(sources, vocabulary)),
    `# Risk: ${risk[0]}; of the two that were merged: ${risk[1]}, ${risk[2]}`,
    '',
  ].join('\n')
  // It is also refused here if it became larger than a policy may be.
  const output = outputFile(options)
  const read = await policyFromText(text, output ?? 'the merged policy', vocabulary)
  if (!isDeepStrictEqual(read, policy))
    throw new InternalError('The merged policy does not read back as it was merged')
  if (output !== undefined) writeOutput(output, text)
  if (options.json === true)
    printJson({
      policy,
      rights: RIGHT_LISTS.flatMap(list =>
        rightWords(policy, list, vocabulary).map(word => ({
          list,
          word,
          from: filesWith(sources, list, word, vocabulary),
        })),
      ),
      risk: { merged: risk[0], before: [risk[1], risk[2]] },
    })
  else if (output === undefined) print(...text.trimEnd().split('\n'))
  else print(`${output}: allows what ${fileA} and ${fileB} allow; risk ${risk[0]}`)
  return EXIT.ok
}

async function sourceAt(file: string, vocabulary: Vocabulary): Promise<Source> {
  const text = readPolicyText(file)
  const { policy, positions } = await locatedPolicyFromText(text, file, vocabulary)
  return { file, policy, commentOf: rightComments(text, positions, vocabulary) }
}

type Sources = readonly [Source, Source]

function filesWith(
  sources: Sources,
  list: (typeof RIGHT_LISTS)[number],
  word: string,
  vocabulary: Vocabulary,
): string[] {
  return sources
    .filter(({ policy }) => {
      const words = rightWords(policy, list, vocabulary)
      return words.includes(word) || words.includes('any')
    })
    .map(({ file }) => file)
}

/** Which of the files have a right, each with its own comment. */
function originOf(sources: Sources, vocabulary: Vocabulary): CommentOf {
  return (list, word) => {
    const files = filesWith(sources, list, word, vocabulary)
    return sources
      .filter(({ file }) => files.includes(file))
      .map(({ file, commentOf }) => {
        const comment = commentOf(list, word)
        return comment === undefined ? oneLine(file) : `${oneLine(file)}: ${printable(comment)}`
      })
      .join('; ')
  }
}

const MAX_SHOWN = 80

function oneLine(text: string): string {
  const line = printable(text)
  return line.length > MAX_SHOWN ? `...${line.slice(3 - MAX_SHOWN)}` : line
}

function conflictError(a: string, b: string, conflicts: readonly Conflict[]): ConflictError {
  const shown = (value: string | undefined): string =>
    value === undefined ? 'nothing' : value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN - 3)}...` : value
  const lines = conflicts
    .slice(0, MAX_TOLD)
    .map(({ path, before, after }) => `${path}: ${a} has ${shown(before)}, ${b} has ${shown(after)}`)
  const more = conflicts.length - lines.length
  const choices = [...new Set(conflicts.map(({ choice }) => `--${choice} a|b`))]
  return new ConflictError(
    ['The policies differ in what does not add up', ...lines, ...(more > 0 ? [`and ${more} more`] : [])],
    {
      context: { a, b, paths: [...new Set(conflicts.map(({ path }) => path))].slice(0, MAX_TOLD).join(' ') },
      hint: `Say whose are to hold (${choices.join(', ')}), or make them the same first`,
    },
  )
}

const MAX_TOLD = 20
