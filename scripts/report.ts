/**
 * What came out of a run of tests: counts, what failed or was skipped, a line each, and how long
 * each file took.
 */

/** A file that takes so long is listed. */
const LONG_MS = 10_000

export class Report {
  passed = 0
  readonly failures: string[] = []
  readonly skips: string[] = []
  /** Milliseconds of each file, its process included. */
  readonly times = new Map<string, number>()

  /** As `toJSON` gives it. */
  static parse(text: string): Report {
    const { passed, failures, skips, times } = JSON.parse(text) as Report & { times: [string, number][] }
    const report = new Report()
    report.passed = passed
    report.failures.push(...failures)
    report.skips.push(...skips)
    for (const [file, ms] of times) report.times.set(file, ms)
    return report
  }

  /** Takes over what another run came to; `where` goes before each line. */
  add(other: Report, where = ''): void {
    this.passed += other.passed
    this.failures.push(...other.failures.map(line => where + line))
    this.skips.push(...other.skips.map(line => where + line))
    for (const [file, ms] of other.times) this.times.set(where + file, ms)
  }

  toJSON(): object {
    const { passed, failures, skips, times } = this
    return { passed, failures, skips, times: [...times] }
  }

  /** The lists, and the closing line. */
  toString(): string {
    const { passed, failures, skips, times } = this
    const list = (title: string, lines: readonly string[]): string =>
      lines.length > 0 ? `\n${title}:\n  ${lines.join('\n  ')}\n` : ''
    const long = [...times].filter(([, ms]) => ms >= LONG_MS).sort(([, a], [, b]) => b - a)
    const longest = long.map(([file, ms]) => `${Math.round(ms / 1000)} s ${file}`)
    return `${list('longest', longest)}${list('skipped', skips)}${list('failed', failures)}
${passed} passed, ${failures.length} failed, ${skips.length} skipped`
  }
}
