/**
 * The package as npm installs it from its tarball, once for each run of the tests: what the tests
 * of the commands run. It lies where every user can read it, other than a clone.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from './tree.ts'

/** Where it is installed, for the processes of a run. */
const VARIABLE = 'BPFTOKEN_TEST_PREFIX'

/**
 * npm's prefix, with `bin/bpftoken`; undefined: this file of tests is run alone, or nothing could
 * be installed.
 */
export const PREFIX = process.env[VARIABLE]

/** The package itself: what was installed, else this repository as it is built. */
export const PACKAGE = PREFIX === undefined ? ROOT : join(PREFIX, 'lib/node_modules/bpftoken')

/**
 * Installs it for the tests that are started from here on, until this process ends. The reason,
 * where it cannot.
 */
export function install(): string | undefined {
  const prefix = mkdtempSync(join(tmpdir(), 'bpftoken-installed-'))
  chmodSync(prefix, 0o755)
  process.once('exit', () => rmSync(prefix, { recursive: true, force: true }))
  const done = spawnSync(join(ROOT, 'scripts/install-package.sh'), [prefix], { encoding: 'utf8' })
  if (done.status !== 0) return done.stderr.trim().split('\n').at(-1) ?? `status ${done.status}`
  process.env[VARIABLE] = prefix
  return undefined
}
