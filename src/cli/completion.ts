// biome-ignore-all lint/suspicious/noTemplateCurlyInString: it is of the shells
/**
 * Completions for shells, made from the tree of commands. The script knows all words, so that
 * pressing a key starts no program. Pure.
 */
import type { Option } from 'commander'
import type { Command } from './command.ts'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

/** What can stand at a place. */
type Values = 'files' | 'directories' | 'anything' | readonly string[]

const FILES = ['file', 'object', 'before', 'after', 'policy', 'path']
const DIRECTORIES = ['dir']

function valuesOf(name: string, choices: readonly string[] | undefined): Values {
  if (choices !== undefined) return choices
  if (FILES.includes(name)) return 'files'
  return DIRECTORIES.includes(name) ? 'directories' : 'anything'
}

/** Undefined: it takes no value. */
function valuesOfOption({ required, flags, argChoices }: Option): Values | undefined {
  return required ? valuesOf(/<([^[>]+)/.exec(flags)![1]!, argChoices) : undefined
}

function valuesOfArgument(command: Command): Values {
  const [first] = command.registeredArguments
  return first === undefined ? 'anything' : valuesOf(first.name(), first.argChoices)
}

/** With the option of the help, which commander keeps apart. */
export function optionsOf(command: Command): readonly Option[] {
  return command.createHelp().visibleOptions(command)
}

const flagsOf = ({ short, long }: Option): string[] => [short, long].filter(flag => flag !== undefined)
/** As a function or a pattern of a shell is called. */
const identifier = (command: Command): string => ['', ...command.path.split(' ')].join('_').replace(/_$/, '')
const single = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

export function completionScript(shell: Shell, tree: Command): string {
  return `${SCRIPTS[shell](tree).join('\n')}\n`
}

const SCRIPTS: Readonly<Record<Shell, (tree: Command) => string[]>> = { bash, zsh, fish }

const HEADING = 'bpftoken; made from its tree of commands by `bpftoken completion`.'

function bash(tree: Command): string[] {
  const commands = tree.withAllBelow()
  const withValue = (command: Command) =>
    optionsOf(command).flatMap(option => {
      const values = valuesOfOption(option)
      return values === undefined ? [] : [{ flags: flagsOf(option), values }]
    })
  const reply = (values: Values): string => {
    if (values === 'files') return '_bpftoken_files -f'
    if (values === 'directories') return '_bpftoken_files -d'
    return values === 'anything' ? 'COMPREPLY=()' : `_bpftoken_words ${single(values.join(' '))}`
  }
  const cases = commands.flatMap(command => [
    `    ${single(command.path)})`,
    `      options=${single(optionsOf(command).flatMap(flagsOf).join(' '))}`,
    `      commands=${single(command.subcommands.map(one => one.name()).join(' '))}`,
    '      case $previous in',
    ...withValue(command).map(
      ({ flags, values }) => `        ${flags.join('|')}) ${reply(values)}; return ;;`,
    ),
    '      esac',
    ...(command.runsProgram ? ['      program=yes'] : []),
    `      argument=${single(reply(valuesOfArgument(command)))}`,
    '      ;;',
  ])
  const takers = commands.map(command => {
    const flags = withValue(command).flatMap(one => one.flags)
    return flags.length === 0
      ? []
      : [`    ${single(command.path)}) [[ ' ${flags.join(' ')} ' == *" $2 "* ]] ;;`]
  })
  return [
    `# bash completion of ${HEADING}`,
    '',
    '_bpftoken_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current"); }',
    '',
    '_bpftoken_files() {',
    '  compopt -o filenames 2>/dev/null',
    '  mapfile -t COMPREPLY < <(compgen "$1" -- "$current")',
    '}',
    '',
    '# Whether the next word is the value of option $2 of command $1.',
    '_bpftoken_takes_value() {',
    '  case $1 in',
    ...takers.flat(),
    '    *) return 1 ;;',
    '  esac',
    '}',
    '',
    '# Whether command $1 has a command $2 below it.',
    '_bpftoken_has() {',
    '  case $1 in',
    ...commands
      .filter(({ subcommands }) => subcommands.length > 0)
      .map(
        command =>
          `    ${single(command.path)}) [[ ' ${command.subcommands.map(one => one.name()).join(' ')} ' == *" $2 "* ]] ;;`,
      ),
    '    *) return 1 ;;',
    '  esac',
    '}',
    '',
    '# Whether the first operand of command $1 is a program, and all that follows is its own.',
    `_bpftoken_runs_program() { [[ ${single(
      `|${commands
        .filter(one => one.runsProgram)
        .map(one => one.path)
        .join('|')}|`,
    )} == *"|$1|"* ]]; }`,
    '',
    '_bpftoken() {',
    '  # COMP_WORDBREAKS has = and :, at which bash parts words that are one.',
    '  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}',
    '  local path= options= commands= program= operands= argument= word i',
    '  [[ $current == = ]] && current=',
    '  [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD-2]}',
    '  COMPREPLY=()',
    '  for ((i = 1; i < COMP_CWORD; i++)); do',
    '    word=${COMP_WORDS[i]}',
    '    if [[ $word == -- ]]; then operands=yes; break; fi',
    '    if [[ $word == -* ]]; then',
    '      _bpftoken_takes_value "$path" "$word" && i=$((i + 1))',
    '      [[ ${COMP_WORDS[i]} == = ]] && i=$((i + 1))',
    '    elif _bpftoken_has "$path" "$word"; then',
    '      path="${path:+$path }$word"',
    '    else',
    '      operands=yes',
    '      _bpftoken_runs_program "$path" && break',
    '    fi',
    '  done',
    '  case $path in',
    ...cases,
    '  esac',
    '  if [[ -n $program && -n $operands ]]; then',
    '    # The program that is run, and its arguments.',
    '    if ((i == COMP_CWORD - 1)) && [[ ${COMP_WORDS[i]} == -- ]]; then',
    '      mapfile -t COMPREPLY < <(compgen -c -- "$current")',
    '    else',
    '      _bpftoken_files -f',
    '    fi',
    '  elif [[ $current == -* ]]; then',
    '    _bpftoken_words "$options"',
    '  elif [[ -n $commands ]]; then',
    '    _bpftoken_words "$commands"',
    '  else',
    '    eval "$argument"',
    '  fi',
    '}',
    '',
    'complete -F _bpftoken bpftoken',
  ]
}

function zsh(tree: Command): string[] {
  const text = (value: string): string => value.replaceAll(/[[\]:\\]/g, '\\$&')
  const action = (name: string, values: Values): string => {
    if (values === 'files') return `:${name}:_files`
    if (values === 'directories') return `:${name}:_files -/`
    return values === 'anything' ? `:${name}: ` : `:${name}:(${values.join(' ')})`
  }
  const option = (one: Option): string[] => {
    const values = valuesOfOption(one)
    const name = /<([^[>]+)/.exec(one.flags)?.[1] ?? ''
    return flagsOf(one).map(flag => {
      const takes = values === undefined ? '' : `${flag.startsWith('--') ? '=' : '+'}`
      const repeats = one.description.includes('(repeatable)') ? '*' : ''
      return single(
        `${repeats}${flag}${takes}[${text(one.description)}]${values === undefined ? '' : action(name, values)}`,
      )
    })
  }
  const one = (command: Command): string[] => {
    const [argument] = command.registeredArguments
    const operands = command.runsProgram
      ? ["'(-)1:program: _command_names -e'", "'*::arguments: _normal'"]
      : argument === undefined
        ? []
        : [single(`${argument.variadic ? '*' : '1'}${action(argument.name(), valuesOfArgument(command))}`)]
    const below = command.subcommands.length > 0
    return [
      `_bpftoken${identifier(command)}() {`,
      ...(below ? ['  local curcontext=$curcontext state line'] : []),
      `  _arguments${below ? ' -C' : ''} -s -S \\`,
      ...[
        ...optionsOf(command).flatMap(option),
        ...(below ? ["'1: :->command'", "'*:: :->words'"] : operands),
      ].map((word, i, all) => `    ${word}${i === all.length - 1 ? '' : ' \\'}`),
      ...(below
        ? [
            '  case $state in',
            '    command)',
            '      local -a commands=(',
            ...command.subcommands.map(
              sub => `        ${single(`${sub.name()}:${text(sub.description())}`)}`,
            ),
            '      )',
            '      _describe command commands',
            '      ;;',
            '    words)',
            '      case $line[1] in',
            ...command.subcommands.map(sub => `        ${sub.name()}) _bpftoken${identifier(sub)} ;;`),
            '      esac',
            '      ;;',
            '  esac',
          ]
        : []),
      '}',
      '',
    ]
  }
  return [
    '#compdef bpftoken',
    `# zsh completion of ${HEADING}`,
    '',
    ...tree.withAllBelow().flatMap(one),
    '# As a file of $fpath it is the function itself; from `source` it is named.',
    'if [[ $funcstack[1] == _bpftoken ]]; then',
    '  _bpftoken "$@"',
    'else',
    '  compdef _bpftoken bpftoken',
    'fi',
  ]
}

function fish(tree: Command): string[] {
  const lines = tree.withAllBelow().flatMap(command => {
    const at = `-n ${single(`__bpftoken_at ${command.path}`.trim())}`
    const values = (of: Values | undefined): string => {
      if (of === undefined) return ''
      if (of === 'files') return ' -r -F'
      if (of === 'directories') return " -x -a '(__fish_complete_directories)'"
      return of === 'anything' ? ' -x' : ` -x -a ${single(of.join(' '))}`
    }
    const [argument] = command.registeredArguments
    return [
      ...command.subcommands.map(
        one => `complete -c bpftoken ${at} -a ${one.name()} -d ${single(one.description())}`,
      ),
      ...optionsOf(command).map(option => {
        const flags = flagsOf(option).map(flag =>
          flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
        )
        return `complete -c bpftoken ${at} ${flags.join(' ')}${values(valuesOfOption(option))} -d ${single(option.description)}`
      }),
      ...(command.runsProgram
        ? [
            `complete -c bpftoken -n ${single(`__bpftoken_at ${command.path}; and contains -- -- (commandline -opc)`)} -F -a '(__fish_complete_command)'`,
          ]
        : argument !== undefined && valuesOfArgument(command) === 'files'
          ? [`complete -c bpftoken ${at} -F`]
          : argument?.argChoices === undefined
            ? []
            : [`complete -c bpftoken ${at} -a ${single(argument.argChoices.join(' '))}`]),
    ]
  })
  const groups = tree.withAllBelow().filter(({ subcommands }) => subcommands.length > 0)
  return [
    `# fish completion of ${HEADING}`,
    '',
    '# Whether the words so far name this command, and none below it.',
    'function __bpftoken_at',
    '    set -l path',
    '    for word in (commandline -opc)[2..-1]',
    '        switch "$path"',
    ...groups.flatMap(group => [
      `            case ${single(group.path)}`,
      `                contains -- $word ${group.subcommands.map(one => one.name()).join(' ')}`,
      '                and set path (string trim "$path $word")',
    ]),
    '        end',
    '    end',
    '    test "$path" = "$argv"',
    'end',
    '',
    'complete -c bpftoken -f',
    ...lines,
  ]
}
