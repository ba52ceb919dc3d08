/** Who may import whom: the table of ARCHITECTURE.md, held against every import in src. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { test } from 'node:test'

const SRC = resolve(__dirname, '../../../src')

const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  index: ['errors', 'client'],
  errors: [],
  uapi: ['uapi'],
  sys: ['errors', 'uapi', 'sys'],
  ebpf: ['errors', 'uapi', 'sys', 'ebpf'],
  policy: ['errors', 'uapi', 'policy'],
  guard: ['errors', 'uapi', 'sys', 'ebpf', 'policy', 'guard'],
  delegation: ['errors', 'uapi', 'sys', 'ebpf', 'policy', 'delegation'],
  model: ['errors', 'uapi', 'policy', 'guard', 'model'],
  api: ['errors', 'policy', 'api'],
  needs: ['errors', 'uapi', 'sys', 'ebpf', 'policy', 'needs'],
  record: ['errors', 'uapi', 'sys', 'ebpf', 'policy', 'needs', 'record'],
  lending: ['errors', 'uapi', 'sys', 'ebpf', 'policy', 'guard', 'delegation', 'model', 'lending'],
  registry: ['errors', 'uapi', 'sys', 'policy', 'registry'],
  client: ['errors', 'api', 'client'],
  page: ['errors', 'sys', 'client', 'page'],
  service: ['errors', 'uapi', 'sys', 'ebpf', 'service'],
  daemon: [
    ...['errors', 'uapi', 'sys', 'ebpf', 'policy', 'api', 'guard', 'delegation', 'lending', 'registry'],
    ...['service', 'daemon'],
  ],
  cri: ['errors', 'cri'],
  nri: ['errors', 'sys', 'api', 'client', 'cri', 'service', 'nri'],
  cli: [
    'errors',
    'uapi',
    'ebpf',
    'policy',
    'api',
    'guard',
    'delegation',
    'needs',
    'record',
    'model',
    'lending',
    'client',
    'page',
    'cli',
  ],
}

/**
 * What the commands take of these folders, besides types: what is to be looked at, and the guard's
 * own management. Whatever lends or takes back is a use case, in lending.
 */
const CLI_TAKES: Readonly<Record<string, readonly string[]>> = {
  delegation: ['actions', 'instances', 'vocabulary'],
  guard: ['delegators', 'directory', 'guard', 'install', 'program-names', 'suggest'],
}
/** The model takes the guard's words and numbers, which are the same in its C; not what does I/O. */
const MODEL_TAKES: Readonly<Record<string, readonly string[]>> = { guard: ['layout', 'terms'] }
const TAKES: Readonly<Record<string, typeof CLI_TAKES>> = { cli: CLI_TAKES, model: MODEL_TAKES }

/**
 * Only commands and the daemon's program talk to people and to the environment; one file reads
 * libbpf's variable.
 */
const SPEAKS = /\bprocess\.(env|exit|exitCode|stdout|stderr)\b|\bconsole\./
const MAY_SPEAK = /^cli\/|^(daemon|nri)\/main\.ts$|^page\/child\.ts$|^ebpf\/token\.ts$/

function layerOf(file: string): string {
  const [first] = relative(SRC, file).split('/')
  return first!.replace(/\.ts$/, '')
}

/**
 * For the flag m also \r, U+2028 and U+2029 end a line, which names of processes and cgroups may
 * hold: see sys/proc-file.ts.
 */
const LINES_OF_REGEXP =
  /\/[dgisuvy]*m[dgimsuvy]*(?=\.(?:exec|test|source|\[)|[,;)\]]|$)|RegExp\([^\n]*, ?['"`]\w*m/m

/** Imports that bring more than types. */
const VALUE_IMPORT =
  /(?:^|\n)(?:import|export) (?!type )(?:[^'\n;]|\n(?! *import ))*from '(\.[^']+)'|\bimport\('(\.[^']+)'\)/g

/** What is wrong with a file of this text. */
function violations(file: string, text: string): string[] {
  const name = relative(SRC, file)
  const allowed = MAY_IMPORT[layerOf(file)]
  if (allowed === undefined) return [`${name}: no such layer`]
  const wrong: string[] = []
  for (const [, target] of text.matchAll(/\b(?:from |import |import\(|require\()'([^']+)'/g)) {
    if (target === undefined || target.endsWith('.json')) continue
    if (target.startsWith('.')) {
      const layer = layerOf(resolve(dirname(file), target))
      if (!allowed.includes(layer)) wrong.push(`${name} imports ${layer}`)
    } else if (
      target.startsWith('node:') &&
      (['policy', 'model'].includes(layerOf(file)) || (layerOf(file) === 'uapi' && target !== 'node:os'))
    ) {
      wrong.push(`${name} imports ${target}`)
    }
  }
  const takesOf = TAKES[layerOf(file)]
  if (takesOf !== undefined)
    for (const [, from, lazy] of text.matchAll(VALUE_IMPORT)) {
      const path = resolve(dirname(file), from ?? lazy!)
      const takes = takesOf[layerOf(path)]
      if (takes !== undefined && !takes.includes(basename(path, '.ts')))
        wrong.push(`${name} imports ${relative(SRC, path)}`)
    }
  if (/\bloadAddon\b|\.node['`]/.test(text) && !name.startsWith('sys/'))
    wrong.push(`${name} touches the addon`)
  const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
  if (LINES_OF_REGEXP.test(code)) wrong.push(`${name} has a regular expression with the flag m`)
  if (SPEAKS.test(code) && !MAY_SPEAK.test(name)) wrong.push(`${name} speaks or reads the environment`)
  return wrong
}

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap(entry =>
    entry.isDirectory()
      ? sources(join(dir, entry.name))
      : entry.name.endsWith('.ts')
        ? [join(dir, entry.name)]
        : [],
  )
}

test('every file of src keeps to its layer', () => {
  const files = sources(SRC)
  assert.ok(files.length > 50)
  assert.deepEqual(
    files.flatMap(file => violations(file, readFileSync(file, 'utf8'))),
    [],
  )
})

/** The arrows of a diagram: whom each layer stands right above. */
function arrowsOf(diagram: string): Map<string, Set<string>> {
  const arrows = new Map<string, Set<string>>()
  for (const line of diagram.split('\n')) {
    const steps = line.split('<-').map(step => step.split(',').map(name => name.trim()))
    for (const [i, uppers] of steps.entries())
      for (const upper of uppers)
        for (const lower of i === 0 ? [] : steps[i - 1]!)
          arrows.set(upper, (arrows.get(upper) ?? new Set()).add(lower))
  }
  return arrows
}

/** All that a layer stands above, right or further down. */
function below(layer: string, arrows: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
  const found = new Set<string>()
  const visit = (one: string): void => {
    for (const lower of arrows.get(one) ?? [])
      if (!found.has(lower)) {
        found.add(lower)
        visit(lower)
      }
  }
  visit(layer)
  return found
}

test('the diagram of ARCHITECTURE.md is what the imports are', () => {
  const text = readFileSync(join(SRC, '../ARCHITECTURE.md'), 'utf8')
  const diagram = /^## Layers\n\n```\n(.*?)\n```$/ms.exec(text)?.[1] ?? ''
  const arrows = arrowsOf(diagram)
  const drawn = new Set([...arrows].flatMap(([upper, lowers]) => [upper, ...lowers]))
  assert.deepEqual(
    [...drawn].sort(),
    Object.keys(MAY_IMPORT)
      .filter(layer => layer !== 'index')
      .sort(),
  )
  const imported = new Map<string, Set<string>>()
  for (const file of sources(SRC)) {
    const layer = layerOf(file)
    const known = imported.get(layer) ?? new Set()
    imported.set(layer, known)
    for (const [, target] of readFileSync(file, 'utf8').matchAll(/\b(?:from |import\()'(\.[^']+)'/g))
      known.add(layerOf(resolve(dirname(file), target!)))
  }
  for (const layer of drawn) {
    const actual = imported.get(layer)!
    const may = below(layer, arrows).add(layer)
    assert.deepEqual(
      [...actual].filter(one => !may.has(one)),
      [],
      `${layer} imports what is not below it`,
    )
    assert.deepEqual(
      [...(arrows.get(layer) ?? [])].filter(one => !actual.has(one)),
      [],
      `${layer} does not import`,
    )
  }
})

test('arrowsOf() and below() read a diagram', () => {
  const arrows = arrowsOf('a, b  <-  c  <-  d\ne  <-  d')
  assert.deepEqual([...arrows.get('d')!], ['c', 'e'])
  assert.deepEqual([...below('d', arrows)].sort(), ['a', 'b', 'c', 'e'])
  assert.deepEqual([...below('a', arrows)], [])
})

/**
 * Outside of src: scripts run and build the tests, and these try the scripts; never round in a
 * circle.
 */
const AROUND: Readonly<Record<string, readonly string[]>> = {
  scripts: ['src', 'scripts'],
  test: ['src', 'scripts', 'test'],
  bench: ['src', 'scripts', 'test', 'bench'],
}

test('scripts, tests and benchmarks import each other in one direction', () => {
  const root = join(SRC, '..')
  const wrong = Object.entries(AROUND).flatMap(([folder, allowed]) =>
    sources(join(root, folder)).flatMap(file =>
      [...readFileSync(file, 'utf8').matchAll(/^(?:import|export|\}) [^\n]*from '(\.[^']+)'/gm)]
        .map(([, target]) => relative(root, resolve(dirname(file), target!)).split('/')[0]!)
        .filter(target => !allowed.includes(target))
        .map(target => `${relative(root, file)} imports ${target}`),
    ),
  )
  assert.deepEqual(wrong, [])
})

/** Files that reach each other by their imports, those of types too, each group in one string. */
function circles(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const reached = new Map<string, Set<string>>()
  for (const file of imports.keys()) {
    const found = new Set<string>()
    const left = [...imports.get(file)!]
    for (let one = left.pop(); one !== undefined; one = left.pop()) {
      if (found.has(one)) continue
      found.add(one)
      left.push(...(imports.get(one) ?? []))
    }
    reached.set(file, found)
  }
  const groups = [...imports.keys()]
    .filter(file => reached.get(file)!.has(file))
    .map(file =>
      [...reached.get(file)!]
        .filter(other => reached.get(other)?.has(file) === true)
        .sort()
        .join(' '),
    )
  return [...new Set(groups)].sort()
}

/**
 * Files that know each other's types. Whoever has to understand one of them has to read all: there
 * are to be fewer, and no new ones.
 */
const KNOWN_CIRCLES = [
  /^cli\/commands\/explain-event\.ts cli\/commands\/explain\.ts$/,
  /^daemon\/approvals\.ts daemon\/lend\.ts .*daemon\/parts\.ts/,
  /^ebpf\/static-link\/ext-records\.ts ebpf\/static-link\/out-section\.ts ebpf\/static-link\/source\.ts$/,
  /^ebpf\/static-link\/linked-types\.ts ebpf\/static-link\/symbols\.ts$/,
  /^lending\/causes\/.* lending\/explain\.ts lending\/situation\.ts$/,
]

test('no files import each other, but for the groups that are known', () => {
  const imports = new Map(
    sources(SRC).map(file => [
      relative(SRC, file),
      [...readFileSync(file, 'utf8').matchAll(/\b(?:from |import\()'(\.[^']+\.ts)'/g)].map(([, target]) =>
        relative(SRC, resolve(dirname(file), target!)),
      ),
    ]),
  )
  const found = circles(imports)
  assert.deepEqual(
    found.filter(group => !KNOWN_CIRCLES.some(known => known.test(group))),
    [],
  )
  assert.equal(found.length, KNOWN_CIRCLES.length, 'one that is known is no more: take it off the list')
})

test('circles() finds files that reach each other, and none that only one of them reaches', () => {
  const of = (text: string): string[] =>
    circles(new Map(text.split(' ').map(one => [one[0]!, [...one.slice(1)]])))
  assert.deepEqual(of('ab bc ca dc e'), ['a b c'])
  assert.deepEqual(of('ab ba cd dc'), ['a b', 'c d'])
  assert.deepEqual(of('ab bc c'), [])
  assert.deepEqual(of('aa b'), ['a'])
})

test('violations() finds an import against the arrows, a Node module in policy, and output from a library', () => {
  assert.deepEqual(violations(join(SRC, 'ebpf/x.ts'), "import { a } from '../policy/policy.ts'"), [
    'ebpf/x.ts imports policy',
  ])
  assert.deepEqual(violations(join(SRC, 'sys/x.ts'), "await import('../cli/main.ts')"), [
    'sys/x.ts imports cli',
  ])
  const takes = (line: string) => violations(join(SRC, 'cli/commands/x.ts'), line)
  assert.deepEqual(takes("import {\n  a,\n} from '../../delegation/delegate.ts'"), [
    'cli/commands/x.ts imports delegation/delegate.ts',
  ])
  assert.deepEqual(takes("await import('../../guard/confine.ts')"), [
    'cli/commands/x.ts imports guard/confine.ts',
  ])
  assert.deepEqual(takes("import type { A } from '../../delegation/delegate.ts'"), [])
  assert.deepEqual(takes("import { a } from '../../delegation/actions.ts'"), [])
  assert.deepEqual(violations(join(SRC, 'policy/x.ts'), "import fs from 'node:fs'"), [
    'policy/x.ts imports node:fs',
  ])
  assert.deepEqual(violations(join(SRC, 'sys/x.ts'), 'console.log(1)'), [
    'sys/x.ts speaks or reads the environment',
  ])
  for (const text of ['/^a$/m.exec(b)', 'b.replace(/^a/gm, c)', 'const a = /^b/m', 'new RegExp("^a", "m")'])
    assert.deepEqual(violations(join(SRC, 'cli/x.ts'), text), [
      'cli/x.ts has a regular expression with the flag m',
    ])
  for (const text of ['/^a$/s.exec(b)', 'a / m', "'/sys/m'", 'new RegExp("^a", "u")', "'a/mm', b"])
    assert.deepEqual(violations(join(SRC, 'cli/x.ts'), text), [], text)
})

test('README has fewer than 200 lines and its links exist', () => {
  const root = join(SRC, '..')
  const text = readFileSync(join(root, 'README.md'), 'utf8')
  assert.ok(text.split('\n').length < 200)
  for (const [, link] of text.matchAll(/\]\(([^)#:]+)\)/g)) readFileSync(join(root, link!))
})
