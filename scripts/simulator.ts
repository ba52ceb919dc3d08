/**
 * The model for browsers, as one file: tsx scripts/simulator.ts writes docs/simulator/simulator.js,
 * which the page beside it loads. Not kept in git.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildSync } from 'esbuild'
import { ROOT } from './tree.ts'

/** The text of the bundle. It sets `bpftokenModel`, and needs nothing that a browser has not. */
export function simulatorBundle(): string {
  const { outputFiles } = buildSync({
    entryPoints: [join(ROOT, 'src/model/browser.ts')],
    bundle: true,
    write: false,
    minify: true,
    format: 'iife',
    globalName: 'bpftokenModel',
    platform: 'browser',
    target: 'es2022',
    // O_DIRECTORY differs between processors; the model opens nothing.
    define: { 'process.arch': '"x64"' },
    logLevel: 'silent',
  })
  return outputFiles[0]!.text
}

if (require.main === module) {
  const file = join(ROOT, 'docs/simulator/simulator.js')
  const text = simulatorBundle()
  writeFileSync(file, text)
}
