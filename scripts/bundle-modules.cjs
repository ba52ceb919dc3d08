/**
 * Puts modules that a program loads together into one file: node scripts/bundle-modules.cjs DIST
 *
 * Node finds, reads and compiles each file by itself, which takes a third of a millisecond, and the
 * daemon loads 110 before it is ready. Modules that the same programs load at their start go
 * into one file, DIST/chunks/NAME.js, each as a function of the text that the compiler wrote. In
 * the place of each is left a file that gets it from there, so that there is only one of it,
 * whoever loads it.
 */
'use strict'
const { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const path = require('node:path')

const STARTS = {
  /** Each of these is loaded with all that it loads before it does anything. */
  together: {
    daemon: 'daemon/main.js',
    http: 'daemon/http/endpoints.js',
    command: 'cli/dispatch.js',
    run: 'cli/commands/run.js',
    ls: 'cli/commands/ls.js',
    policy: 'cli/commands/policy.js',
    parse: 'policy/parse.js',
  },
  /** This stays what it is, with all that it loads: `--version` needs no more. */
  programs: ['cli/main.js'],
  /** Node starts it, and it is told where it is. */
  asTheyAre: ['daemon/main.js'],
}
/** The compiler writes these at the beginning of a line; what is loaded later stands within one. */
const LOADS_AT_ONCE = /^(?:const \w+ = )?(?:\w+\()?require\("(\.[^"]+)"\)/gm
const LOADS = /\brequire\(["'](\.[^"']+)["']\)/g

const pathFrom = (name, loaded) => path.join(path.dirname(name), loaded)

/** All that `name` loads at once, and it. */
function closure(code, name, found = new Set()) {
  if (found.has(name) || !code.has(name)) return found
  found.add(name)
  for (const [, loaded] of code.get(name).matchAll(LOADS_AT_ONCE))
    closure(code, pathFrom(name, loaded), found)
  return found
}

/** The modules of each chunk, by its name: those that the same starts load. */
function chunksOf(code, starts) {
  const apart = new Set(starts.programs.flatMap(name => [...closure(code, name)]))
  for (const name of Object.values(starts.together))
    if (!code.has(name)) throw new Error(`There is no ${name}`)
  const closures = Object.entries(starts.together).map(([start, name]) => [start, closure(code, name)])
  const chunks = new Map()
  for (const name of [...code.keys()].sort()) {
    if (apart.has(name) || starts.asTheyAre.includes(name)) continue
    const by = closures.flatMap(([start, modules]) => (modules.has(name) ? [start] : [])).join('-')
    if (by !== '') chunks.set(by, [...(chunks.get(by) ?? []), name])
  }
  // One file is as good as another.
  return new Map([...chunks].filter(([, modules]) => modules.length > 1))
}

/** The files to write, by their names: the chunks, and what is left in the place of their modules. */
function bundled(code, starts = STARTS) {
  const chunks = chunksOf(code, starts)
  const chunkOf = new Map([...chunks].flatMap(([chunk, modules]) => modules.map(name => [name, chunk])))
  const files = new Map()
  for (const [chunk, modules] of chunks) {
    const functions = modules.map(name => wrapped(name, chunk, code.get(name), chunkOf))
    files.set(`chunks/${chunk}.js`, `${HEAD}${functions.join('')}}\n`)
    for (const name of modules) {
      const to = path.relative(path.dirname(name), `chunks/${chunk}.js`)
      files.set(name, `"use strict";\nmodule.exports = require("${to}")("${name}");\n`)
    }
  }
  return files
}

const HEAD = `"use strict";
// Made by scripts/bundle-modules.cjs. Each module is as the compiler wrote it.
const path = require("node:path");
const loaded = new Map();
function load(name) {
  const known = loaded.get(name);
  if (known !== undefined) return known.exports;
  const module = { exports: {} };
  loaded.set(name, module);
  try {
    const filename = path.join(__dirname, "..", name);
    MODULES[name].call(module.exports, module.exports, module, filename, path.dirname(filename));
  } catch (error) {
    loaded.delete(name);
    throw error;
  }
  return module.exports;
}
module.exports = load;
const MODULES = {
`

/** A module as a member of its chunk. What it loads is another member, or of another chunk, or a file. */
function wrapped(name, chunk, text, chunkOf) {
  const linked = text.replace(LOADS, (_, relative) => {
    const loaded = pathFrom(name, relative)
    const its = chunkOf.get(loaded)
    if (its === chunk) return `load("${loaded}")`
    if (its !== undefined) return `require("./${its}.js")("${loaded}")`
    return `require("../${loaded}")`
  })
  return `"${name}": function (exports, module, __filename, __dirname) {\n${linked}\n},\n`
}

/** By names as they are below `dist`. */
function codeIn(dist) {
  const names = readdirSync(dist, { recursive: true }).filter(name => name.endsWith('.js'))
  const ours = names.filter(name => !/^(bundled|chunks|page\/site)\//.test(name))
  return new Map(ours.map(name => [name, readFileSync(path.join(dist, name), 'utf8')]))
}

function main(dist) {
  rmSync(path.join(dist, 'chunks'), { recursive: true, force: true })
  mkdirSync(path.join(dist, 'chunks'))
  const code = codeIn(dist)
  for (const [name, text] of code)
    if (text.includes('/chunks/')) throw new Error(`${name} is in a chunk: compile it anew`)
  for (const [name, text] of bundled(code)) writeFileSync(path.join(dist, name), text)
}

if (require.main === module) main(process.argv[2])
module.exports = { bundled }
