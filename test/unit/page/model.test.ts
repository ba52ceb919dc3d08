/** What the page shows of what the daemon says, and what its files may not have. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { ROOT } from '../../helpers/machine.ts'
import { LOAN } from '../daemon/http/fake-service.ts'

const SITE = join(ROOT, 'src/page/site')
// biome-ignore lint/suspicious/noExplicitAny: it is no TypeScript
let model: any
before(async () => {
  model = await import(join(SITE, 'model.mjs'))
})

test('shown() makes what hides, turns or ends lines visible, and cuts what is endless', () => {
  assert.equal(
    model.shown('a\nb\x1b[2J\u202ec\u200bd\u2028'),
    'a\\u{a}b\\u{1b}[2J\\u{202e}c\\u{200b}d\\u{2028}',
  )
  assert.equal(model.shown('<img src=x onerror=alert(1)>'), '<img src=x onerror=alert(1)>')
  assert.equal(model.shown('x'.repeat(5000)).length, 201)
  assert.equal(model.shown(undefined), '')
  assert.equal(model.shown('größe 漢字'), 'größe 漢字')
})

test('treeOf() puts what is derived below its origin, and leaves out nothing, whatever is said', () => {
  const loan = (id: string, parent?: string) => ({ ...LOAN, id, spec: { ...LOAN.spec, parent } })
  const rows = model.treeOf([
    loan('loan-3', 'loan-2'),
    loan('loan-1'),
    loan('loan-2', 'loan-1'),
    loan('loan-4', 'loan-9'),
  ])
  assert.deepEqual(
    rows.map((row: { loan: { id: string }; depth: number }) => [row.loan.id, row.depth]),
    [
      ['loan-1', 0],
      ['loan-2', 1],
      ['loan-3', 2],
      ['loan-4', 0],
    ],
  )
  const circle = model.treeOf([loan('loan-1', 'loan-2'), loan('loan-2', 'loan-1')])
  assert.equal(circle.length, 2)
})

test('limitsOf() has shares, sizes and levels', () => {
  const status = {
    live: { tokens: 8, programs: 0, maps: 1, mapBytes: 1048576 },
    limits: { tokens: 8, maps: 0, mapBytes: '4194304' },
  }
  assert.deepEqual(model.limitsOf({ ...LOAN, status }), [
    { name: 'tokens', share: 1, text: '8 of 8', level: 'bad' },
    { name: 'maps', share: 1, text: '1 of 0', level: 'bad' },
    { name: 'map memory', share: 0.25, text: '1.0 MiB of 4.0 MiB', level: 'good' },
  ])
  assert.deepEqual(model.limitsOf({}), [])
})

test('leftText(), barsOf() and refusalsText()', () => {
  const now = Date.parse('2026-01-02T03:00:00Z')
  assert.equal(model.leftText('2026-01-02T05:01:02Z', now), '2h1m')
  assert.equal(model.leftText('2026-01-02T02:00:00Z', now), 'over')
  assert.equal(model.leftText('no time', now), 'over')
  assert.equal(model.leftText(undefined, now), 'no end')
  assert.deepEqual(
    model.barsOf([0, 2, 4], 30, 100).bars.map(({ height }: { height: number }) => height),
    [0, 50, 100],
  )
  assert.equal(model.refusalsText([0, 0], false), 'nothing')
  assert.equal(model.refusalsText([1, 3], true), 'more than 4 times; in the worst minute 3')
})

test('no file of the page has inline code, reads text as HTML, or loads anything from elsewhere', () => {
  const files = readdirSync(SITE).filter(name => !name.endsWith('.md'))
  assert.deepEqual(files.sort(), ['index.html', 'model.mjs', 'page.css', 'page.mjs', 'view.mjs'])
  for (const name of files) {
    const text = readFileSync(join(SITE, name), 'utf8')
    assert.doesNotMatch(
      text,
      /innerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser|\beval\b|new Function/,
      name,
    )
    assert.doesNotMatch(text.replace('http://www.w3.org/2000/svg', ''), /https?:|\burl\(|@import/, name)
    if (name.endsWith('.html'))
      assert.doesNotMatch(text, /\son\w+=|style=|<script(?! type="module" src="\/)|<style/, name)
  }
})
