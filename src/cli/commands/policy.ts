/** bpftoken policy check and show: offline, in the words of the running kernel or of a known one. */
import { BpftokenError, EXIT, PolicyError } from '../../errors.ts'
import { describeLimits } from '../../policy/limits-text.ts'
import { lintPolicy } from '../../policy/lint.ts'
import { describeMask, hexMask, mountOption } from '../../policy/mask-text.ts'
import { assessRisk, compareRisk, RISK_LEVELS, type RiskLevel } from '../../policy/risk.ts'
import { MASK_DOMAINS, type Vocabulary } from '../../policy/vocabulary.ts'
import { describeFailure } from '../failure-report.ts'
import { columns, type Line, print, printJson, styled, table, warn } from '../output.ts'
import { loadPolicy, locatedPolicyIn, type PolicyFile, policyFilesAt } from '../policy-file.ts'
import { type KernelName, policyWords } from '../policy-words.ts'
import { Progress } from '../progress.ts'
import { levelText, riskBars } from '../risk-text.ts'

export interface CheckOptions {
  maxRisk?: RiskLevel
  kernel?: KernelName
  verbose?: boolean
  json?: boolean
}

/**
 * A file that is no policy does not stop the others. Exit 0: nothing to warn of, and no more risk
 * than allowed; 1: a warning, more risk, or a file cannot be read; 2: a file is not a valid policy.
 */
export async function check(paths: string[], options: CheckOptions): Promise<number> {
  const files = paths.flatMap(policyFilesAt)
  const vocabulary = await policyWords(options.kernel)
  // Many would drive out of the cache what other commands need.
  const keep = files.length === 1
  using progress = new Progress({ total: files.length })
  const reports: Report[] = []
  for (const file of files) {
    progress.step(file.path)
    reports.push(await checkFile(file, { max: options.maxRisk, vocabulary, keep }))
  }
  progress[Symbol.dispose]()
  if (options.json === true) printJson(reports)
  else {
    const whole = files.length === 1 || options.verbose === true
    for (const report of reports) {
      if (wordOf(report) === 'unread' && !report.valid) for (const line of report.lines) warn(line)
      print(...describe(report, whole))
    }
    if (files.length > 1) print(summary(reports))
  }
  return Math.max(...reports.map(report => report.exit))
}

type Report = Awaited<ReturnType<typeof checkFile>>

interface CheckContext {
  readonly max: RiskLevel | undefined
  readonly vocabulary: Vocabulary
  readonly keep: boolean
}

async function checkFile(from: PolicyFile, { max, vocabulary, keep }: CheckContext) {
  const file = from.path
  try {
    const { policy, locate } = await locatedPolicyIn(from, vocabulary, { keep })
    const findings = lintPolicy(policy, vocabulary).map(finding => ({ ...finding, ...locate(finding.path) }))
    const risk = assessRisk(policy, vocabulary)
    const tooRisky = max !== undefined && compareRisk(risk.level, max) > 0
    const warned = findings.some(finding => finding.severity === 'warning')
    return {
      file,
      valid: true as const,
      findings,
      risk,
      tooRisky,
      exit: warned || tooRisky ? EXIT.failed : EXIT.ok,
    }
  } catch (error) {
    const { lines, exitStatus } = describeFailure(error)
    // An internal error is our defect, and not the file's.
    if (!(error instanceof BpftokenError)) throw error
    const issues = error instanceof PolicyError ? error.issues : []
    return { file, valid: false as const, message: error.message, lines, issues, exit: exitStatus }
  }
}

/** What was found, and one line of verdict at the end. */
function describe(report: Report, whole: boolean): readonly Line[] {
  if (!report.valid) return [...(report.issues.length > 0 ? report.lines : []), verdict(report)]
  const { file, findings, risk } = report
  return [
    ...findings.flatMap(f => [`${file}:${f.line}:${f.col}: ${f.severity}: ${f.message}`, `    ${f.fix}`]),
    ...(whole ? table(riskBars(risk), { indent: '    ' }) : []),
    verdict(report),
  ]
}

function verdict(report: Report): Line {
  const { file, exit } = report
  const word = styled(exit === EXIT.ok ? 'good' : 'bad', WORDS[wordOf(report)])
  if (!report.valid) return [`${file}: `, word]
  const { findings, risk, tooRisky } = report
  const counts = (['warning', 'note'] as const).flatMap(severity => {
    const count = findings.filter(one => one.severity === severity).length
    return count === 0 ? [] : [`${count} ${severity}${count === 1 ? '' : 's'}`]
  })
  const also = counts.length === 0 ? '' : `, ${counts.join(', ')}`
  return [
    `${file}: `,
    word,
    `${also}: risk `,
    levelText(risk.level),
    ...(tooRisky ? [', more than allowed'] : []),
  ]
}

const WORDS = { passes: 'passes', fails: 'fails', invalid: 'not valid', unread: 'not read' } as const

function wordOf({ valid, exit }: Report): keyof typeof WORDS {
  if (valid) return exit === EXIT.ok ? 'passes' : 'fails'
  return exit === EXIT.usage ? 'invalid' : 'unread'
}

function summary(reports: readonly Report[]): string {
  const counts = (Object.keys(WORDS) as (keyof typeof WORDS)[]).flatMap(word => {
    const count = reports.filter(report => wordOf(report) === word).length
    return count === 0
      ? []
      : [`${count} ${word === 'passes' ? 'pass' : word === 'fails' ? 'fail' : WORDS[word]}`]
  })
  const levels = reports.flatMap(report => (report.valid ? [report.risk.level] : []))
  const highest = RISK_LEVELS.findLast(level => levels.includes(level))
  return `${reports.length} policies: ${counts.join(', ')}${highest === undefined ? '' : `; highest risk ${highest}`}`
}

export interface ShowOptions {
  masks?: boolean
  kernel?: KernelName
  json?: boolean
}

export async function show(file: string, options: ShowOptions): Promise<number> {
  const vocabulary = await policyWords(options.kernel)
  const policy = await loadPolicy(file, vocabulary)
  const masks = MASK_DOMAINS.map(domain => ({
    option: `delegate_${domain}`,
    hex: hexMask(policy.rights.masks[domain]),
    words: mountOption(vocabulary, domain, policy.rights.masks[domain]),
  }))
  if (options.json === true) {
    printJson(options.masks === true ? masks : policy)
  } else if (options.masks === true) {
    print(...columns(masks.map(({ option, hex, words }) => [option, hex, `${option}=${words}`])))
  } else {
    const words = MASK_DOMAINS.map(domain => [
      domain,
      describeMask(vocabulary, domain, policy.rights.masks[domain]).join(' ') || '-',
    ])
    print(
      ...columns([
        ['policy', policy.name],
        ...words,
        ['capabilities', policy.rights.capabilities.join(' ')],
        ['limits', describeLimits(policy.limits)],
        ['approval', policy.approval],
        ['launch', policy.launch ?? 'none'],
        ['network', policy.network],
        ['cgroups', policy.cgroups],
        ['guard', policy.guard],
        ['mode', policy.mode],
      ]),
    )
  }
  return EXIT.ok
}
