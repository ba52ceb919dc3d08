/** bpftoken policy check and show: offline, against the running kernel's vocabulary. */
import { runningVocabulary } from '../../delegation/vocabulary.ts'
import { EXIT, PolicyError, UsageError } from '../../errors.ts'
import { describeLimits } from '../../policy/limits-text.ts'
import { lintPolicy } from '../../policy/lint.ts'
import { describeMask, hexMask, mountOption } from '../../policy/mask-text.ts'
import { parseLocatedPolicy, parsePolicy } from '../../policy/parse.ts'
import { policyToJSON } from '../../policy/policy.ts'
import { assessRisk, compareRisk, RISK_LEVELS, type RiskLevel } from '../../policy/risk.ts'
import { MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { columns, print, printJson } from '../output.ts'
import { readPolicyText } from '../policy-file.ts'

export interface CheckOptions {
  maxRisk?: string
  json?: boolean
}

/**
 * Exit 0: nothing to warn of and no more risk than allowed; 1: otherwise; 2: a file is not a valid
 * policy.
 */
export function check(files: string[], options: CheckOptions): number {
  const max = options.maxRisk as RiskLevel | undefined
  if (max !== undefined && !RISK_LEVELS.includes(max))
    throw new UsageError(`--max-risk is one of ${RISK_LEVELS.join(', ')}, not "${max}"`)
  const reports = files.map(file => checkFile(file, max))
  if (options.json === true) printJson(reports)
  else for (const report of reports) print(...describe(report))
  return Math.max(...reports.map(report => report.exit))
}

type Report = ReturnType<typeof checkFile>

function checkFile(file: string, max: RiskLevel | undefined) {
  const vocabulary = runningVocabulary()
  const text = readPolicyText(file)
  try {
    const { policy, locate } = parseLocatedPolicy(text, { source: file, vocabulary })
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
    if (!(error instanceof PolicyError)) throw error
    return {
      file,
      valid: false as const,
      message: error.message,
      lines: error.lines,
      issues: error.issues,
      exit: EXIT.usage,
    }
  }
}

function describe(report: Report): readonly string[] {
  if (!report.valid) return report.lines
  const { file, findings, risk, tooRisky } = report
  return [
    ...findings.flatMap(f => [`${file}:${f.line}:${f.col}: ${f.severity}: ${f.message}`, `    ${f.fix}`]),
    `${file}: risk ${risk.level}${tooRisky ? ', more than allowed' : ''}`,
    ...columns(
      risk.items.map(item => [item.level, `${item.domain} ${item.word}`, item.reason]),
      '    ',
    ),
  ]
}

export function show(file: string, options: { masks?: boolean; json?: boolean }): number {
  const vocabulary = runningVocabulary()
  const policy = parsePolicy(readPolicyText(file), { source: file, vocabulary })
  const masks = MASK_DOMAINS.map(domain => ({
    option: `delegate_${domain}`,
    hex: hexMask(policy.rights.masks[domain]),
    words: mountOption(vocabulary, domain, policy.rights.masks[domain]),
  }))
  if (options.json === true) {
    printJson(options.masks === true ? masks : policyToJSON(policy))
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
        ['network', policy.network],
        ['cgroups', policy.cgroups],
        ['guard', policy.guard],
        ['mode', policy.mode],
      ]),
    )
  }
  return EXIT.ok
}
