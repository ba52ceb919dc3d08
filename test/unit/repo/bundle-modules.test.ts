/** Modules of one file: each is what it was, and there is only one of it. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { Scratch } from '../../helpers/scratch.ts'

interface Starts {
  readonly together: Readonly<Record<string, string>>
  readonly programs: readonly string[]
  readonly asTheyAre: readonly string[]
}

const { bundled } = require('../../../scripts/bundle-modules.cjs') as {
  bundled(code: ReadonlyMap<string, string>, starts: Starts): Map<string, string>
}

const STARTS: Starts = {
  together: { one: 'one/main.js', two: 'two/main.js' },
  programs: ['program.js'],
  asTheyAre: ['one/main.js'],
}

const CODE = new Map(
  Object.entries({
    'program.js': `"use strict";\nconst said_1 = require("./said.js");\nexports.said = said_1.said;`,
    'said.js': `exports.said = 'said';`,
    'one/main.js': `const a_1 = require("./a.js");\nconst c_1 = require("../both/c.js");\nexports.a = a_1;\nexports.c = c_1;`,
    'one/a.js': `"use strict";
const b_1 = require("./b.js");
const c_1 = require("../both/c.js");
exports.where = [__filename, __dirname];
exports.self = this === exports;
exports.b = () => b_1.name;
exports.c = c_1;
exports.later = async () => Promise.resolve().then(() => require('./later.js'));`,
    // A circle, as the compiler leaves it.
    'one/b.js': `const a_1 = require("./a.js");\nexports.name = 'b';\nexports.a = () => a_1.where;`,
    'one/later.js': `const c_1 = require("../both/c.js");\nexports.c = c_1;`,
    'two/main.js': `const d_1 = require("../both/d.js");\nconst c_1 = require("../both/c.js");\nexports.c = c_1;\nexports.d = d_1;`,
    'two/other.js': `exports.nobody = true;`,
    'both/c.js': `const said_1 = require("../said.js");\nexports.said = said_1.said;\nexports.C = class {};`,
    'both/d.js': `globalThis.attempts = (globalThis.attempts ?? 0) + 1;\nif (globalThis.attempts === 1) throw new Error('not yet');\nexports.d = true;`,
  }),
)

test('modules that are loaded together are in one file, once, and behave as by themselves', async () => {
  using scratch = new Scratch()
  const written = bundled(CODE, STARTS)
  for (const [name, text] of [...CODE, ...written]) {
    mkdirSync(dirname(join(scratch.path, name)), { recursive: true })
    writeFileSync(join(scratch.path, name), text)
  }
  const load = createRequire(join(scratch.path, 'x.js'))
  assert.deepEqual([...written.keys()].filter(name => name.startsWith('chunks/')).sort(), [
    'chunks/one.js',
    'chunks/two.js',
  ])
  for (const name of ['one/a.js', 'one/b.js']) assert.match(written.get(name)!, /require\("\.\.\/chunks\/one/)
  for (const name of ['one/main.js', 'one/later.js', 'program.js', 'said.js', 'two/other.js'])
    assert.equal(written.has(name), false, name)

  const main = load('./one/main.js')
  assert.equal(main.a.b(), 'b')
  assert.equal(main.a.self, true)
  assert.deepEqual(main.a.where, [join(scratch.path, 'one/a.js'), join(scratch.path, 'one')])
  assert.deepEqual(load('./one/b.js').a(), main.a.where, 'a circle is closed')
  // Who loads it by another way, before or later, gets the same.
  assert.equal(load('./one/a.js'), main.a)
  assert.equal(load('./both/c.js'), main.c)
  assert.equal((await main.a.later()).c, main.c)
})

test('chunks: what several starts load is in a file of its own, and one that failed is tried again', () => {
  using scratch = new Scratch()
  const code = new Map(CODE)
  code.set(
    'one/main.js',
    `${CODE.get('one/main.js')}\nconst d_1 = require("../both/d.js");\nexports.d = d_1;`,
  )
  const written = bundled(code, STARTS)
  for (const [name, text] of [...code, ...written]) {
    mkdirSync(dirname(join(scratch.path, name)), { recursive: true })
    writeFileSync(join(scratch.path, name), text)
  }
  assert.ok(existsSync(join(scratch.path, 'chunks/one-two.js')))
  assert.match(written.get('chunks/one.js')!, /require\("\.\/one-two\.js"\)\("both\/c\.js"\)/)
  const load = createRequire(join(scratch.path, 'x.js'))
  assert.throws(() => load('./two/main.js'), /not yet/)
  assert.equal(load('./two/main.js').d.d, true)
  assert.equal(load('./one/main.js').c, load('./two/main.js').c)
  assert.equal(load('./both/c.js').said, load('./program.js').said)
})

test('of what is built no door of the package and no program is in a chunk', () => {
  const root = join(__dirname, '../../..')
  const { exports, bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { default: string }>
    bin: Record<string, string>
  }
  const doors = Object.values(exports).flatMap(door => (typeof door === 'string' ? [] : door.default))
  const programs = Object.values(bin).filter(name => name.endsWith('.js'))
  // ES modules learn what a door exports from its text.
  for (const name of [...doors, ...programs, 'dist/cli/main.js'])
    assert.doesNotMatch(
      readFileSync(join(root, name), 'utf8'),
      /module\.exports = require\("[./]*chunks/,
      name,
    )
  assert.match(readFileSync(join(root, 'dist/daemon/lend.js'), 'utf8'), /chunks\/daemon\.js/)
})
