/** Manual pages, in the macros of man(7), made from the tree of commands. Pure. */
import type { Option } from 'commander'
import type { Command } from './command.ts'
import { optionsOf } from './completion.ts'

export interface ManualPage {
  /** `bpftoken-policy-check` */
  readonly name: string
  readonly text: string
}

/** One for the root, and one for each command that does something. */
export function manualPages(tree: Command, about: { version: string; date: string }): ManualPage[] {
  const commands = tree.withAllBelow().filter(one => one === tree || one.subcommands.length === 0)
  return commands.map(command => {
    const name = pageName(command)
    const lines = [
      '.\\" Made from the tree of commands by scripts/gen-cli-docs.ts.',
      `.TH ${name.toUpperCase()} 1 ${about.date} "bpftoken ${about.version}" "User Commands"`,
      ...nameSection(command, name),
      ...synopsis(command),
      ...description(command),
      ...list(
        'ARGUMENTS',
        command.registeredArguments.map(one => [`.I ${text(one.name())}`, one.description]),
      ),
      ...list(
        'OPTIONS',
        optionsOf(command).map(option => [flagsLine(option), optionText(option)]),
      ),
      ...(command === tree ? commandsSection(commands.slice(1)) : []),
      ...examples(command),
      ...seeAlso(command, commands),
    ]
    return { name, text: `${lines.join('\n')}\n` }
  })
}

/** What a page of a service says beside its options: a title, and paragraphs or items of it. */
export type ManualSection = readonly [
  title: string,
  said: readonly (string | readonly [term: string, said: string])[],
]

/** The page of a program with options alone, of section 8: system administration. */
export function serviceManual(
  command: { name(): string; description(): string; readonly options: readonly Option[] },
  [description, ...rest]: readonly [ManualSection, ...ManualSection[]],
  about: { version: string; date: string },
): ManualPage {
  const name = command.name()
  const lines = [
    '.\\" Made from the command line by scripts/gen-cli-docs.ts.',
    `.TH ${name.toUpperCase()} 8 ${about.date} "bpftoken ${about.version}" "System Administration"`,
    '.SH NAME',
    `${text(name)} \\- ${text(command.description())}`,
    '.SH SYNOPSIS',
    `.B ${text(name)}`,
    '[options]',
    ...section(description),
    ...list(
      'OPTIONS',
      command.options.map(option => [flagsLine(option), optionText(option)]),
    ),
    ...rest.flatMap(section),
  ]
  return { name, text: `${lines.join('\n')}\n` }
}

function section([title, said]: ManualSection): string[] {
  const lines = said.flatMap(one =>
    typeof one === 'string'
      ? ['.PP', ...filled(one)]
      : ['.TP', `.B ${text(one[0])}`, ...filled(sentence(one[1]))],
  )
  return [`.SH "${title}"`, ...lines]
}

const pageName = (command: Command): string =>
  ['bpftoken', ...command.path.split(' ')].join('-').replace(/-$/, '')

/** Escapes text so that no character is a request or an escape, and a dash can be copied as one. */
function text(plain: string): string {
  const escaped = plain.replaceAll('\\', '\\e').replaceAll('-', '\\-')
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped
}

/** A paragraph, in lines that are not long; where they end means nothing. */
function filled(paragraph: string): string[] {
  const lines: string[] = []
  for (const word of paragraph.split(/\s+/)) {
    const line = lines.at(-1)
    if (line !== undefined && line.length + word.length < LINE_COLUMNS) lines[lines.length - 1] += ` ${word}`
    else lines.push(word)
  }
  return lines.map(text)
}

const LINE_COLUMNS = 72

function nameSection(command: Command, name: string): string[] {
  return ['.SH NAME', `${text(name)} \\- ${text(command.description())}`]
}

function synopsis(command: Command): string[] {
  const required = command.options.filter(option => option.mandatory).map(({ flags }) => flags)
  const operands = command.registeredArguments.map(one => {
    const name = one.variadic ? `${one.name()}...` : one.name()
    return one.required ? name : `[${name}]`
  })
  const words = [
    ...required,
    '[options]',
    ...(command.subcommands.length > 0 ? ['command', '[words...]'] : []),
    ...(command.runsProgram ? ['--'] : []),
    ...operands,
  ]
  return ['.SH SYNOPSIS', `.B ${text(`bpftoken ${command.path}`.trim())}`, text(words.join(' '))]
}

function description(command: Command): string[] {
  const paragraphs = command.paragraphs.flatMap(paragraph => [
    '.PP',
    // Lines that are set apart stay lines.
    ...(paragraph.includes('\n  ') ? verbatim(paragraph.split('\n')) : filled(paragraph)),
  ])
  return ['.SH DESCRIPTION', ...filled(sentence(command.description())), ...paragraphs]
}

const sentence = (words: string): string =>
  `${words.charAt(0).toUpperCase()}${words.slice(1).replace(/\.$/, '')}.`

const verbatim = (lines: readonly string[]): string[] => ['.nf', ...lines.map(text), '.fi']

/** Each item is a line with its macro, and its description. */
function list(title: string, items: readonly (readonly [string, string])[]): string[] {
  if (items.length === 0) return []
  return [`.SH ${title}`, ...items.flatMap(([term, said]) => ['.TP', term, ...filled(sentence(said))])]
}

const flagsLine = ({ flags }: Option): string => `.B "${text(flags.replaceAll('"', '\\(dq'))}"`

function optionText({ description: said, argChoices, defaultValue }: Option): string {
  const more = [
    ...(argChoices === undefined ? [] : [`one of ${argChoices.join(', ')}`]),
    ...(typeof defaultValue === 'string' ? [`default ${defaultValue}`] : []),
  ]
  return more.length === 0 ? said : `${said} (${more.join('; ')})`
}

function commandsSection(commands: readonly Command[]): string[] {
  return list(
    'COMMANDS',
    commands.map(command => [`.B ${text(command.path)}`, command.description()] as const),
  )
}

function examples({ examples: all }: Command): string[] {
  if (all.length === 0) return []
  return [
    '.SH EXAMPLES',
    ...all.flatMap(({ words, does }) => [
      '.TP',
      `.B ${text(`bpftoken ${words}`)}`,
      ...filled(sentence(does)),
    ]),
  ]
}

/** The root, and the pages beside it. */
function seeAlso(command: Command, commands: readonly Command[]): string[] {
  const beside = commands.filter(
    one =>
      one !== command && (one.parent === command.parent || one.parent === null || command.parent === null),
  )
  const names = beside.map(
    (one, i) => `.BR ${text(pageName(one))} "(1)${i === beside.length - 1 ? '' : ','}"`,
  )
  return ['.SH "SEE ALSO"', ...names]
}
