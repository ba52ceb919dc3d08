/** The shell blocks of README and docs do what they say: each block marked `sh` alone is run. */
import assert from 'node:assert/strict'
import { chmodSync, cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { PACKAGE, PREFIX } from '../../scripts/installed.ts'
import { execute } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'

const documents = ['README.md', ...readdirSync(join(ROOT, 'docs')).map(name => `docs/${name}`)].filter(name =>
  name.endsWith('.md'),
)
const blocks = documents.flatMap(file =>
  shellBlocks(file).flatMap(({ name, script }) => (name === undefined ? [{ file, script }] : [])),
)

/**
 * Where every user can read it, with `bpftoken` on the path: what is installed, or as it would be.
 */
let stage: string
let bin: string
before(() => {
  stage = PACKAGE
  bin = `${PREFIX}/bin`
  if (PREFIX !== undefined) return
  stage = mkdtempSync(join(tmpdir(), 'bpftoken-docs-'))
  bin = stage
  chmodSync(stage, 0o755)
  const modules = ['picomatch'].map(name => `node_modules/${name}`)
  for (const part of ['package.json', 'dist', 'bpf', 'build/Release', 'examples', ...modules])
    cpSync(join(ROOT, part), join(stage, part), { recursive: true })
  writeFileSync(
    join(stage, 'bpftoken'),
    `#!/bin/sh\nexec "${process.execPath}" "${stage}/dist/cli/main.js" "$@"\n`,
    { mode: 0o755 },
  )
})
after(() => {
  if (PREFIX === undefined) rmSync(stage, { recursive: true, force: true })
})

test('there are shell blocks to run', () => assert.ok(blocks.length >= 2))

for (const { file, script } of blocks) {
  test(`${file} runs: ${script.split('\n')[0]}`, needsTokens(), async () => {
    const env = { ...process.env, PATH: `${bin}:${process.env['PATH']}` }
    const { status, stderr, stdout } = await execute('bash', ['-euo', 'pipefail', '-c', script], {
      cwd: stage,
      env,
    })
    assert.equal(status, 0, stdout + stderr)
  })
}
