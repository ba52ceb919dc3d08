/** Files that scripts generate: formatted, written, or with --check only compared. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './tree.ts'

/** TypeScript as the formatter has it in this file. */
export function formatted(file: string, source: string): string {
  const biome = join(ROOT, 'node_modules/.bin/biome')
  return execFileSync(biome, ['format', `--stdin-file-path=${file}`], {
    cwd: ROOT,
    input: source,
    encoding: 'utf8',
    maxBuffer: 1 << 24,
  })
}

/**
 * Writes the file where it is not this text. With `check` it says so instead; false: it differs.
 */
export function generate(file: string, text: string, check: boolean, how: string): boolean {
  const path = join(ROOT, file)
  if (existsSync(path) && readFileSync(path, 'utf8') === text) return true
  if (check) {
    console.error(`${file} is out of date; run: ${how}`)
    return false
  }
  writeFileSync(path, text)
  console.log(`wrote ${file}`)
  return true
}
