/**
 * Makes one file each of the packages that most commands load: node scripts/bundle-packages.cjs
 * DIST
 *
 * Finding, reading and compiling 150 files of zod and yaml takes longer than all the rest of
 * `policy check`. So DIST/bundled/NAME.js holds of each package what the compiled code in DIST
 * uses, and that code is made to load it. Our own code stays as the compiler wrote it.
 */
'use strict'
const { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const path = require('node:path')

/**
 * In the compiled code a package is `NAME_1`; of zod everything is below its `z`. commander starts
 * programs for commands that are such, and loads at once what that takes; ours are functions.
 */
const PACKAGES = {
  commander: { used: /\bcommander_1\.(\w+)/g, without: 'node:child_process' },
  yaml: { used: /\byaml_1\.(\w+)/g },
  zod: { used: /\bzod_1\.z\s*\.\s*(\w+)/g, below: 'z' },
}

/** The compiled code in `dist`: the text of each file. */
function codeIn(dist) {
  const names = readdirSync(dist, { recursive: true }).filter(name => name.endsWith('.js'))
  const ours = names.filter(name => !name.startsWith('bundled/'))
  return new Map(ours.map(name => [path.join(dist, name), readFileSync(path.join(dist, name), 'utf8')]))
}

/** What is bundled for this code, bundles in use already or not: the text of each, by its name. */
function bundlesFor(code) {
  return new Map(Object.keys(PACKAGES).map(name => [name, bundle(name, namesUsed(name, code))]))
}

/** Throws where a package is used in a way that is not understood: something would be missing. */
function namesUsed(name, code) {
  const loads = new RegExp(`\\brequire\\("(?:[./]*/bundled/)?${name}(?:\\.js)?"\\)`, 'g')
  const users = [...code].filter(([, text]) => text.search(loads) >= 0)
  const names = users.flatMap(([file, text]) => {
    const found = [...text.matchAll(PACKAGES[name].used)].map(match => match[1])
    const mentions = text.match(new RegExp(`\\b${name}_1\\b`, 'g'))
    if (mentions?.length !== found.length + [...text.matchAll(loads)].length)
      throw new Error(`It is not clear what ${file} uses of ${name}`)
    return found
  })
  if (names.length === 0) throw new Error(`Nothing uses ${name}`)
  return [...new Set(names)].sort()
}

function bundle(name, names) {
  const { below, without } = PACKAGES[name]
  const members = names.map(one => `${one}: all.${one}`).join(', ')
  const { outputFiles } = require('esbuild').buildSync({
    stdin: {
      contents:
        below === undefined
          ? `export { ${names.join(', ')} } from '${name}'`
          : `import * as all from '${name}'\nexport const ${below} = { ${members} }`,
      resolveDir: __dirname,
    },
    absWorkingDir: path.join(__dirname, '..'), // Names of files stand in comments.
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    charset: 'utf8',
    legalComments: 'inline',
    write: false,
    logLevel: 'error',
  })
  const [{ text }] = outputFiles
  const loads = `require("${without}")`
  if (without !== undefined && !text.includes(loads)) throw new Error(`${name} does not load ${without}`)
  return `${heading(name)}${text.replace(loads, '{}')}`
}

/** Which version it is, and the licence that goes with every copy. */
function heading(name) {
  const directory = path.join(__dirname, '../node_modules', name)
  const { version, license } = JSON.parse(readFileSync(path.join(directory, 'package.json'), 'utf8'))
  const text = readFileSync(path.join(directory, 'LICENSE'), 'utf8').trim()
  return `/*\nA part of ${name} ${version} (${license}), made by scripts/bundle-packages.cjs.\n\n${text}\n*/\n`
}

function main(dist) {
  const code = codeIn(dist)
  const bundles = bundlesFor(code)
  const home = path.join(dist, 'bundled')
  rmSync(home, { recursive: true, force: true })
  mkdirSync(home)
  for (const [name, text] of bundles) writeFileSync(path.join(home, `${name}.js`), text)
  for (const [file, text] of code) {
    const from = path.relative(path.dirname(file), home)
    const bundled = text.replace(/\brequire\("(\w+)"\)/g, (all, name) =>
      bundles.has(name) ? `require("${from}/${name}.js")` : all,
    )
    if (bundled !== text) writeFileSync(file, bundled)
  }
}

if (require.main === module) main(process.argv[2])
module.exports = { bundlesFor, codeIn }
