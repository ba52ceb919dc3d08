/**
 * What the compiler leaves to be done in its output: node scripts/finish-dist.cjs DIR
 *
 * It copies the page's files, which browsers load as they are.
 *
 * In declarations it writes the types of typed arrays with what is their default parameter anyway;
 * TypeScript before 5.7 does not know it.
 */
'use strict'
const { chmodSync, cpSync, readdirSync, readFileSync, writeFileSync } = require('node:fs')
const path = require('node:path')

const dist = process.argv[2]
for (const name of readdirSync(dist, { recursive: true })) {
  if (!name.endsWith('.d.ts')) continue
  const file = path.join(dist, name)
  const text = readFileSync(file, 'utf8')
  const plain = text.replaceAll('Uint8Array<ArrayBufferLike>', 'Uint8Array')
  if (plain !== text) writeFileSync(file, plain)
}
cpSync(path.join(__dirname, '../src/page/site'), path.join(dist, 'page/site'), {
  recursive: true,
  filter: file => !file.endsWith('.md'),
})
for (const program of ['cli/main.js', 'daemon/main.js', 'nri/main.js'])
  chmodSync(path.join(dist, program), 0o755)
