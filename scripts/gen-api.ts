/**
 * Writes down what each door of the package exports, names and signatures, as users' compilers see
 * it, into test/unit/repo/doors. A test compares, so that a change of the API is seen in review.
 *
 *   npx tsx scripts/gen-api.ts
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
// The newest compiler has no JavaScript API.
import ts from 'typescript-5.4'

const ROOT = join(__dirname, '..')
export const GOLDEN = join(ROOT, 'test/unit/repo/doors')

/** The doors, by the names of their golden files: each with its declarations in the package. */
export const DOORS: Readonly<Record<string, string>> = {
  bpftoken: 'dist/index.d.ts',
  'bpftoken-ebpf': 'dist/ebpf/index.d.ts',
  'bpftoken-policy': 'dist/policy/index.d.ts',
}

/** Runs a compiler of node_modules; throws with what it says. */
export function compile(compiler: 'typescript' | 'typescript-5.4', args: readonly string[]): void {
  const program = join(ROOT, 'node_modules', compiler, 'bin/tsc')
  execFileSync(process.execPath, [program, ...args], { encoding: 'utf8', stdio: 'pipe' })
}

/** The package as far as compilers read it, made of src, in `folder`/node_modules/bpftoken. */
export function declarationsIn(folder: string): string {
  const modules = join(folder, 'node_modules')
  const made = join(modules, 'bpftoken')
  mkdirSync(made, { recursive: true })
  for (const name of ['zod', '@types', 'undici-types'])
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name))
  cpSync(join(ROOT, 'package.json'), join(made, 'package.json'))
  const dist = join(made, 'dist')
  compile('typescript', ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', dist])
  execFileSync(process.execPath, [join(ROOT, 'scripts/finish-dist.cjs'), dist])
  return made
}

/** Each export by its name: its declarations without comments. */
export function apiOf(door: string): string {
  const program = ts.createProgram([door], { moduleResolution: ts.ModuleResolutionKind.Node10 })
  const checker = program.getTypeChecker()
  const module = checker.getSymbolAtLocation(program.getSourceFile(door)!)!
  const printer = ts.createPrinter({ removeComments: true })
  const text = (node: ts.Declaration): string => {
    const whole = ts.isVariableDeclaration(node) ? node.parent.parent : node
    return printer.printNode(ts.EmitHint.Unspecified, whole, node.getSourceFile())
  }
  return checker
    .getExportsOfModule(module)
    .map(symbol => ({ name: symbol.name, target: targetOf(checker, symbol) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, target }) => [`// ${name}`, ...(target.declarations ?? []).map(text)].join('\n'))
    .map(lines => `${lines}\n`)
    .join('\n')
}

function targetOf(checker: ts.TypeChecker, symbol: ts.Symbol): ts.Symbol {
  return symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
}

function main(): void {
  const folder = mkdtempSync(join(tmpdir(), 'bpftoken-api-'))
  try {
    const made = declarationsIn(folder)
    mkdirSync(GOLDEN, { recursive: true })
    for (const [name, door] of Object.entries(DOORS))
      writeFileSync(join(GOLDEN, `${name}.txt`), apiOf(join(made, door)))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (require.main === module) main()
