/**
 * Writes what is made from the tree of commands: manual pages into build/man, completions into
 * build/completions, under the names that shells look for, and into dist/completions, where the
 * command itself finds them. `make build` runs it.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { completionScript, SHELLS } from '../src/cli/completion.ts'
import { manualPages, serviceManual } from '../src/cli/man.ts'
import { commandTree } from '../src/cli/tree.ts'
import { daemonCommand } from '../src/daemon/options.ts'
import { nriCommand } from '../src/nri/options.ts'
import { DAEMON_SECTIONS } from './daemon-manual.ts'
import { LAUNCHD_COMMAND, LAUNCHD_SECTIONS } from './launchd-manual.ts'
import { NRI_SECTIONS } from './nri-manual.ts'

const ROOT = path.join(__dirname, '..')
const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { version: string }

/** What the file is called that a shell loads by itself. */
const FILES = { bash: 'bpftoken', zsh: '_bpftoken', fish: 'bpftoken.fish' } as const

const tree = commandTree(() => {}, version)
const about = { version, date: buildDate() }
const services = [
  serviceManual(daemonCommand(version), DAEMON_SECTIONS, about),
  serviceManual(nriCommand(version), NRI_SECTIONS, about),
  serviceManual(LAUNCHD_COMMAND, LAUNCHD_SECTIONS, about),
]
write('build/man', [
  ...manualPages(tree, about).map(page => [`${page.name}.1`, page.text] as const),
  ...services.map(page => [`${page.name}.8`, page.text] as const),
])
const scripts = SHELLS.map(shell => [shell, completionScript(shell, tree)] as const)
write(
  'build/completions',
  scripts.map(([shell, script]) => [FILES[shell], script]),
)
write('dist/completions', scripts)

/** Of today, or that which builds that can be repeated name. */
function buildDate(): string {
  const seconds = process.env['SOURCE_DATE_EPOCH']
  return (seconds === undefined ? new Date() : new Date(Number(seconds) * 1000)).toISOString().slice(0, 10)
}

/** All files of the folder: what was there is gone. */
function write(folder: string, files: readonly (readonly [name: string, text: string])[]): void {
  const directory = path.join(ROOT, folder)
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  for (const [name, text] of files) writeFileSync(path.join(directory, name), text)
}
