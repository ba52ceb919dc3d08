/** Risk for people: a bar for each right, the longest first. */
import type { RiskAssessment, RiskLevel } from '../policy/risk.ts'
import { RISK_LEVELS } from '../policy/risk.ts'
import { type Styled, styled } from './output.ts'

const STYLES = { low: 'good', medium: 'odd', high: 'odd', critical: 'bad' } as const

/** The word, in its colour. */
export function levelText(level: RiskLevel): Styled {
  return styled(STYLES[level], level)
}

/** `##..`: of four, as many as the level is high. */
function bar(level: RiskLevel): Styled {
  const length = RISK_LEVELS.indexOf(level) + 1
  return styled(STYLES[level], '#'.repeat(length).padEnd(RISK_LEVELS.length, '.'))
}

/** Rows of a table. */
export function riskBars({ items }: RiskAssessment): (string | Styled)[][] {
  return items.map(({ level, domain, word, reason }) => [
    bar(level),
    levelText(level),
    `${domain} ${word}`,
    reason,
  ])
}
