/**
 * The package as a stranger gets it: what is native comes prebuilt for each machine and loads
 * there, the doors open, and where nothing prebuilt suits, one line says what is missing.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { PACKAGE, PREFIX } from '../../scripts/installed.ts'
import { DOCUMENT_NAMES } from '../../src/api/names.ts'
import * as api from '../../src/api/schema.ts'
import * as openapi from '../../src/daemon/http/openapi.ts'
import type { PolicyError } from '../../src/errors.ts'
import * as parsing from '../../src/policy/parse.ts'
import { asNobody, execute, type Result } from '../helpers/cli.ts'
import { CACHE, needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { VOCABULARY } from '../unit/policy/sample-kernel.ts'

const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const installed = PREFIX === undefined ? { skip: 'no package is installed: scripts/test.ts says why' } : {}

/** Debian's name of the machine. */
const MACHINES = { x64: 'x86_64', arm64: 'aarch64' } as const
type Arch = keyof typeof MACHINES

const folder = (arch: Arch): string => join(ROOT, 'prebuilds', `linux-${arch}`)

/** Where scripts/prebuilds.sh could not cross-compile there is no musl addon. */
function needsPrebuilds(arch: Arch): { skip?: string } {
  if (existsSync(join(folder(arch), 'node.napi.musl.node'))) return {}
  return { skip: `nothing is prebuilt for linux-${arch}, or only for machines like this one: make prebuilds` }
}

function needsEmulation(): { skip?: string } {
  const machine = needsPrebuilds('arm64')
  if (machine.skip !== undefined || existsSync(join(CACHE, 'arm64/root'))) return machine
  const why = join(CACHE, 'arm64-why-not')
  return { skip: existsSync(why) ? readFileSync(why, 'utf8').trim() : 'run scripts/fetch-arm64.sh' }
}

/** Runs a program for arm64. */
function emulated(program: string, ...args: string[]): Promise<Result> {
  const root = join(CACHE, 'arm64/root')
  return execute(join(CACHE, 'arm64/qemu-aarch64-static'), ['-L', root, program, ...args])
}

interface Symbols {
  /** Each with its version, as `free@GLIBC_2.17`, where it has one. */
  readonly needed: string[]
  readonly given: ReadonlySet<string>
}

function dynamicSymbols(file: string): Symbols {
  const rows = execFileSync('readelf', ['-W', '--dyn-syms', file], { encoding: 'utf8' })
    .split('\n')
    .map(line => line.trim().split(/\s+/))
    .filter(([number, , , , , , , name]) => /^\d+:$/.test(number!) && name !== undefined)
  return {
    needed: rows.filter(row => row[6] === 'UND' && row[4] === 'GLOBAL').map(row => row[7]!),
    given: new Set(rows.filter(row => row[6] !== 'UND').map(row => row[7]!.replace(/@.*/, ''))),
  }
}

const isOfNode = (symbol: string): boolean => /^(napi|uv)_/.test(symbol)

for (const arch of Object.keys(MACHINES) as Arch[]) {
  test(`the addon for glibc on ${arch} needs no newer one than Node does`, needsPrebuilds(arch), () => {
    const { needed } = dynamicSymbols(join(folder(arch), 'node.napi.glibc.node'))
    const versions = needed.flatMap(symbol => [...symbol.matchAll(/@GLIBC_(\d+)\.(\d+)/g)])
    assert.ok(versions.length > 5)
    // Node 20 is built for glibc 2.28.
    for (const [symbol, major, minor] of versions) assert.ok(major === '2' && Number(minor) <= 28, symbol)
  })

  test(`the addon for musl on ${arch} needs only what Node and musl have`, needsPrebuilds(arch), () => {
    const { needed } = dynamicSymbols(join(folder(arch), 'node.napi.musl.node'))
    const musl = join(CACHE, `native/${arch}/lib/${MACHINES[arch]}-linux-musl/libc.so`)
    const { given } = dynamicSymbols(musl)
    const foreign = (symbols: string[]) => symbols.filter(name => !isOfNode(name) && !given.has(name))
    assert.deepEqual(foreign(needed), [])
    assert.ok(needed.some(isOfNode))
    // Otherwise the checks above would have looked at nothing.
    const glibc = dynamicSymbols(join(folder(arch), 'node.napi.glibc.node')).needed
    assert.notDeepEqual(foreign(glibc.map(symbol => symbol.replace(/@.*/, ''))), [])
  })

  test(`launcher, executor and front for ${arch} need no library at all`, needsPrebuilds(arch), () => {
    for (const name of [
      'bpftoken-launch',
      'bpftoken-executor',
      'bpftoken-run',
      'bpftoken-hook',
      'bpftoken-runc',
      'bpftoken-launchd',
      'bpftoken-hold',
    ]) {
      const segments = execFileSync('readelf', ['-W', '-l', join(folder(arch), name)], { encoding: 'utf8' })
      assert.match(segments, /LOAD/)
      assert.doesNotMatch(segments, /INTERP/)
    }
  })
}

test('launcher and executor for arm64 run', needsEmulation(), async () => {
  const launch = await emulated(join(folder('arm64'), 'bpftoken-launch'))
  assert.deepEqual([launch.status, launch.stdout], [2, ''])
  assert.match(launch.stderr, /^bpftoken-launch is started by bpftoken run, not by hand\n$/)
  const executor = await emulated(join(folder('arm64'), 'bpftoken-executor'), 'layout')
  const ours = await execute(join(folder('x64'), 'bpftoken-executor'), ['layout'])
  assert.deepEqual([executor.status, executor.stdout], [0, ours.stdout])
})

test('the command and its addon load into an arm64 Node', needsEmulation(), async () => {
  const node = join(CACHE, 'arm64/root/usr/bin/node')
  const addon = join(folder('arm64'), 'node.napi.glibc.node')
  // What a shell would do first: show the version. Emulated, more of the command takes minutes.
  const both = `
    console.log(process.arch, typeof require(${JSON.stringify(addon)}).bpf)
    process.argv = [process.execPath, 'bpftoken', '--version']
    require(${JSON.stringify(join(PACKAGE, 'dist/cli/main.js'))})`
  const { status, stdout, stderr } = await emulated(node, '-e', both)
  assert.deepEqual([status, stderr], [0, ''])
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  assert.equal(stdout, `arm64 function\n${version}\n`)
})

test('what is bundled is of the packages that this tree has, and nothing loads these', () => {
  const { bundlesFor, codeIn } = require('../../scripts/bundle-packages.cjs') as {
    codeIn(dist: string): Map<string, string>
    bundlesFor(code: Map<string, string>): Map<string, string>
  }
  const dist = join(PACKAGE, 'dist')
  const code = codeIn(dist)
  const bundles = bundlesFor(code)
  assert.deepEqual([...bundles.keys()], ['commander', 'yaml', 'zod'])
  assert.deepEqual(
    readdirSync(join(dist, 'bundled')),
    [...bundles.keys()].map(name => `${name}.js`),
  )
  for (const [name, text] of bundles) {
    assert.equal(readFileSync(join(dist, 'bundled', `${name}.js`), 'utf8'), text)
    const { version } = JSON.parse(
      readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8'),
    ) as { version: string }
    assert.ok(text.startsWith(`/*\nA part of ${name} ${version} (`), name)
    for (const [file, own] of code) assert.ok(!own.includes(`require("${name}")`), file)
  }
  // A package that is only bundled is not installed as well, perhaps in another version.
  if (PREFIX !== undefined)
    for (const name of ['commander', 'yaml']) assert.ok(!existsSync(join(PACKAGE, 'node_modules', name)))
})

test('schemas, the OpenAPI document and messages are those of the whole zod and yaml', () => {
  const compiled = (module: string): unknown => require(join(PACKAGE, 'dist', module))
  const bundled = {
    ...(compiled('api/schema.js') as typeof api),
    ...(compiled('daemon/http/openapi.js') as typeof openapi),
    ...(compiled('policy/parse.js') as typeof parsing),
  }
  for (const name of DOCUMENT_NAMES) assert.deepEqual(bundled.jsonSchemaOf(name), api.jsonSchemaOf(name))
  assert.deepEqual(bundled.openApiDocument('0'), openapi.openApiDocument('0'))
  const issues = (parse: typeof parsing.parsePolicy): unknown => {
    try {
      return parse(FAULTY, { source: 'faulty.yaml', vocabulary: VOCABULARY })
    } catch (error) {
      return (error as PolicyError).issues
    }
  }
  const found = issues(bundled.parsePolicy) as unknown[]
  assert.deepEqual(found, issues(parsing.parsePolicy))
  assert.ok(found.length > 10, JSON.stringify(found))
})

/** A policy with a fault of each kind. */
const FAULTY = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: {name: Foo_, descrption: 3, description: 7}
spec:
  subjects: [{}, {user: 1.5, unit: [a]}, {container: {labels: {"a b": c}}}]
  rights: {cmds: [nope, 3.5, map_create], maps: 7, capabilities: [cap_net_admn]}
  limits: {tokens: 0, programs: "x", mapBytes: -1, lifetime: 0s, maps: 99999999999}
  network: hosts
  sharing: {bindMount: yes please}
  derive: {maxDepth: 17}
`

test('what is bundled is not made where it is unclear what is used', () => {
  const { bundlesFor } = require('../../scripts/bundle-packages.cjs') as {
    bundlesFor(code: Map<string, string>): Map<string, string>
  }
  const code = (yaml: string) =>
    new Map([
      ['one.js', 'const commander_1 = require("commander");\nnew commander_1.Command()'],
      ['two.js', `const yaml_1 = require("yaml");\n${yaml}`],
      ['three.js', 'const zod_1 = require("../bundled/zod.js");\nzod_1.z\n  .int()'],
    ])
  assert.match(bundlesFor(code('new yaml_1.Lexer()')).get('yaml')!, /\bLexer\b/)
  assert.throws(() => bundlesFor(code('const { Lexer } = yaml_1')), /not clear what two\.js uses of yaml/)
  assert.throws(() => bundlesFor(new Map()), /Nothing uses commander/)
})

test('an installed package needs nothing else: it lends with what it brought', {
  ...needsTokens(),
  ...installed,
}, async () => {
  assert.ok(!existsSync(join(PACKAGE, 'build')))
  const command = join(PREFIX!, 'bin/bpftoken')
  const inside = await execute(command, ['run', '--policy', POLICY, '--', command, 'token', 'show'])
  assert.deepEqual([inside.status, inside.stderr], [0, ''])
  assert.match(inside.stdout, /^progs +xdp$/m)
  const without = await execute(...asNobody([command, 'token', 'show']))
  assert.notEqual(without.status, 0)
  assert.equal(without.stdout, '')
})

test('the doors open to require and to import, and nothing else does', installed, async () => {
  using scratch = new Scratch()
  mkdirSync(join(scratch.path, 'node_modules'))
  symlinkSync(PACKAGE, join(scratch.path, 'node_modules/bpftoken'))
  const required = `
    const { NotFoundError, version } = require('bpftoken')
    const { parseObject } = require('bpftoken/ebpf')
    const { parsePolicy } = require('bpftoken/policy')
    console.log(version, new NotFoundError('x').code, typeof parseObject, typeof parsePolicy)`
  const imported = `
    import { NotFoundError, version } from 'bpftoken'
    import { parseObject } from 'bpftoken/ebpf'
    import { parsePolicy } from 'bpftoken/policy'
    console.log(version, new NotFoundError('x').code, typeof parseObject, typeof parsePolicy)`
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  for (const file of [scratch.write('required.cjs', required), scratch.write('imported.mjs', imported)]) {
    const { stdout, stderr } = await execute(process.execPath, [file])
    assert.equal(stdout, `${version} BPFTOKEN_NOT_FOUND function function\n`, stderr)
  }
  const inner = scratch.write('inner.cjs', "require('bpftoken/dist/cli/main.js')")
  assert.match((await execute(process.execPath, [inner])).stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED/)
})

/** A package in which nothing is prebuilt. */
function bare(scratch: Scratch): string {
  for (const part of ['native', 'package.json', 'dist'])
    cpSync(join(ROOT, part), join(scratch.path, part), { recursive: true })
  return join(scratch.path, 'native/install.cjs')
}

test('where nothing is prebuilt it is compiled, else one line says what is missing', async () => {
  using scratch = new Scratch()
  const script = bare(scratch)
  const { status, stdout, stderr } = await execute(process.execPath, [script], {
    env: { PATH: dirname('/none/x') },
  })
  assert.deepEqual([status, stdout], [1, ''])
  assert.match(stderr, /^bpftoken: nothing prebuilt is here for linux-\w+; .*a C compiler \(Debian: .*\)\n$/)
  const compiled = await execute(process.execPath, [script])
  assert.equal(compiled.status, 0, compiled.stderr)
  const load = `console.log(typeof require(${JSON.stringify(join(scratch.path, 'dist/sys/prebuilt.js'))}).loadAddon().bpf)`
  const loads = await execute(process.execPath, ['-e', load], { cwd: ROOT })
  assert.equal(loads.stdout, 'function\n')
  // Nothing is left to be done.
  assert.equal((await execute(process.execPath, [script], { env: { PATH: '/none' } })).status, 0)
})

test('without an addon the command says so', async () => {
  using scratch = new Scratch()
  bare(scratch)
  cpSync(join(PACKAGE, 'dist'), join(scratch.path, 'dist'), { recursive: true })
  const { status, stdout, stderr } = await execute(process.execPath, [
    join(scratch.path, 'dist/cli/main.js'),
    'ls',
  ])
  assert.deepEqual([status, stdout], [4, ''])
  assert.match(stderr, /There is no addon for this Node \(linux-\w+\)\n.*next: Run npm rebuild bpftoken/)
})

test('what is prebuilt is not compiled again', needsPrebuilds('x64'), async () => {
  using scratch = new Scratch()
  const script = bare(scratch)
  cpSync(join(ROOT, 'prebuilds'), join(scratch.path, 'prebuilds'), { recursive: true })
  const { status, stderr } = await execute(process.execPath, [script], { env: { PATH: '/none' } })
  assert.deepEqual([status, stderr], [0, ''])
  assert.ok(!existsSync(join(scratch.path, 'build')))
})
