/** What came out of a run of tests: counts, and what failed or was skipped, a line each. */

export class Report {
  passed = 0
  readonly failures: string[] = []
  readonly skips: string[] = []

  /** As `toJSON` gives it. */
  static parse(text: string): Report {
    const { passed, failures, skips } = JSON.parse(text) as Report
    const report = new Report()
    report.passed = passed
    report.failures.push(...failures)
    report.skips.push(...skips)
    return report
  }

  /** Takes over what another run came to; `where` goes before each line. */
  add(other: Report, where = ''): void {
    this.passed += other.passed
    this.failures.push(...other.failures.map(line => where + line))
    this.skips.push(...other.skips.map(line => where + line))
  }

  toJSON(): object {
    return { passed: this.passed, failures: this.failures, skips: this.skips }
  }

  /** The lists, and the closing line. */
  toString(): string {
    const { passed, failures, skips } = this
    const list = (title: string, lines: readonly string[]): string =>
      lines.length > 0 ? `\n${title}:\n  ${lines.join('\n  ')}\n` : ''
    return `${list('skipped', skips)}${list('failed', failures)}
${passed} passed, ${failures.length} failed, ${skips.length} skipped`
  }
}
