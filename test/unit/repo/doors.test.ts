/**
 * The public doors: what each exports, against its golden file, and that compilers of users find
 * it: old and new TypeScript, in every way in which they look for modules.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { apiOf, compile, DOORS, declarationsIn, GOLDEN } from '../../../scripts/gen-api.ts'
import { Scratch } from '../../helpers/scratch.ts'

/** A program of a user. Were the types `any`, the line that must be wrong would be none. */
const PROGRAM = `
import { BpftokenError, version } from 'bpftoken'
import { BpfMap, type ObjectSpec, parseObject } from 'bpftoken/ebpf'
import { parseDuration, type Policy, wordsOf } from 'bpftoken/policy'

export function names(bytes: Uint8Array): string[] {
  try {
    const object: ObjectSpec = parseObject(bytes, { name: version })
    return [...object.programs.keys()].map(String)
  } catch (error) {
    if (error instanceof BpftokenError) return [error.code, ...error.lines]
    throw error
  }
}
export const masks = (policy: Policy): unknown => policy.rights
export const made: typeof BpfMap.create = BpfMap.create
export { wordsOf }
// @ts-expect-error: it takes a text
parseDuration(1)
`

/**
 * Which compiler, how modules are found, and what is made of them. TypeScript 7 has no node10 any
 * more.
 */
const PROJECTS = [
  ['typescript-5.4', 'node10', 'commonjs', 'program.ts'],
  ['typescript-5.4', 'bundler', 'es2022', 'program.ts'],
  ['typescript-5.4', 'node16', 'node16', 'program.cts'],
  ['typescript-5.4', 'nodenext', 'nodenext', 'program.mts'],
  ['typescript', 'bundler', 'es2022', 'program.ts'],
  ['typescript', 'node16', 'node16', 'program.mts'],
  ['typescript', 'nodenext', 'nodenext', 'program.cts'],
] as const

let scratch: Scratch
let made: string
before(() => {
  scratch = new Scratch()
  made = declarationsIn(scratch.path)
})
after(() => scratch[Symbol.dispose]())

for (const [name, door] of Object.entries(DOORS))
  test(`${name} exports what its golden file says`, () => {
    const golden = readFileSync(join(GOLDEN, `${name}.txt`), 'utf8')
    assert.equal(apiOf(join(made, door)), golden, 'if that is meant: npx tsx scripts/gen-api.ts')
  })

for (const [compiler, moduleResolution, module, name] of PROJECTS)
  test(`${compiler} compiles ${name} with ${moduleResolution} resolution`, () => {
    const folder = join(scratch.path, `${compiler}-${moduleResolution}`)
    mkdirSync(folder)
    writeFileSync(join(folder, name), PROGRAM)
    const isOldest = compiler === 'typescript-5.4' && moduleResolution === 'nodenext'
    const compilerOptions = {
      ...{ noEmit: true, strict: true, target: 'es2022', types: ['node'], module, moduleResolution },
      // Once is enough to see whether the oldest compiler knows all that our declarations hold.
      skipLibCheck: !isOldest,
    }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [name] }))
    assert.deepEqual(complaints(compiler, folder), [])
  })

/**
 * What a compiler says of the project, and of our declarations; those of others are not ours to
 * judge.
 */
function complaints(compiler: 'typescript' | 'typescript-5.4', folder: string): string[] {
  try {
    compile(compiler, ['--pretty', 'false', '-p', folder])
    return []
  } catch (error) {
    const said = (error as { stdout: string }).stdout.trim().split('\n')
    return said.filter(line => !/^\S*\/node_modules\/(?!bpftoken\/)/.test(line) && !line.startsWith(' '))
  }
}
