/**
 * Changes to TypeScript, one at a time, for a model that is code rather than rules: each condition
 * turned round, each part of a condition left out, each comparison moved by one, each statement left
 * out, each errno and reason exchanged. All are in one program, which has a switch.
 */
import { readFileSync } from 'node:fs'
import ts from 'typescript-5.4'

export interface SourceMutant {
  readonly id: number
  /** `file:line`, and what was changed there. */
  readonly text: string
}

/** What the changed program calls, by this name; `on`: the number of the mutant that it is. */
const SWITCH = '__mutant'
interface Switch {
  on: number
  is(id: number): boolean
  not(id: number, value: unknown): unknown
  text(id: number, value: string): string
  compare(id: number, operator: Ordering, some: number | bigint, other: number | bigint): boolean
}
type Ordering = '<' | '<=' | '>' | '>='

const MOVED: Readonly<Record<Ordering, Ordering>> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' }
const ORDERED: Readonly<Record<Ordering, (some: number | bigint, other: number | bigint) => boolean>> = {
  '<': (some, other) => some < other,
  '<=': (some, other) => some <= other,
  '>': (some, other) => some > other,
  '>=': (some, other) => some >= other,
}

const theSwitch: Switch = {
  on: 0,
  is: id => id === theSwitch.on,
  not: (id, value) => (id === theSwitch.on ? !value : value),
  text: (id, value) => (id === theSwitch.on ? `not ${value}` : value),
  compare: (id, operator, some, other) =>
    ORDERED[id === theSwitch.on ? MOVED[operator] : operator](some, other),
}

/** Makes the program that mutant; 0: as it is. */
export function turnTo(id: number): void {
  Object.assign(globalThis, { [SWITCH]: theSwitch })
  theSwitch.on = id
}

/** Puts all mutants of some files into them. */
export class SourceMutants {
  readonly all: SourceMutant[] = []

  /** The file with its mutants; they are added to `all`. */
  changed(path: string, name: string): string {
    return new Changer(ts.createSourceFile(path, readFileSync(path, 'utf8'), 99, true), name, this.all).text
  }
}

class Changer {
  readonly #file: ts.SourceFile
  readonly #name: string
  readonly #all: SourceMutant[]

  constructor(file: ts.SourceFile, name: string, all: SourceMutant[]) {
    this.#file = file
    this.#name = name
    this.#all = all
  }

  get text(): string {
    return this.#inside(this.#file)
  }

  #mutant(node: ts.Node, how: string): number {
    const id = this.#all.length + 1
    const line = this.#file.getLineAndCharacterOfPosition(node.getStart()).line + 1
    const source = node.getText().replace(/\s+/g, ' ')
    const short = source.length > 70 ? `${source.slice(0, 67)}...` : source
    this.#all.push({ id, text: `${this.#name}:${line} ${how}: ${short}` })
    return id
  }

  /** What a node is, with its children changed. */
  #inside(node: ts.Node): string {
    const source = this.#file.text
    let text = ''
    let at = node.getFullStart()
    // Children by their places: a type may be visited before what it stands behind.
    const children: ts.Node[] = []
    node.forEachChild(child => void children.push(child))
    for (const child of children.sort((one, other) => one.pos - other.pos)) {
      text += source.slice(at, child.getFullStart())
      const leading = source.slice(child.getFullStart(), child.getStart())
      text += leading + this.#changed(child)
      at = child.end
    }
    return text + source.slice(at, node.end)
  }

  #plain(node: ts.Node): string {
    return this.#inside(node).slice(node.getStart() - node.getFullStart())
  }

  #changed(node: ts.Node): string {
    if (ts.isTypeNode(node) || ts.isImportDeclaration(node) || ts.isExportDeclaration(node))
      return node.getText()
    if (isErrnoOrReason(node))
      return `${SWITCH}.text(${this.#mutant(node, 'another word')}, ${node.getText()})`
    if (node.kind === ts.SyntaxKind.TrueKeyword || node.kind === ts.SyntaxKind.FalseKeyword)
      return `${SWITCH}.not(${this.#mutant(node, 'the contrary')}, ${node.getText()})`
    if (ts.isBinaryExpression(node)) return this.#binary(node)
    // In braces: an "else" may follow.
    if (isLeftOut(node))
      return `{ if (!${SWITCH}.is(${this.#mutant(node, 'without')})) { ${this.#plain(node)} } }`
    if (isCondition(node) && !ts.isPrefixUnaryExpression(node))
      return `${SWITCH}.not(${this.#mutant(node, 'turned round')}, ${this.#plain(node)})`
    return this.#plain(node)
  }

  #binary(node: ts.BinaryExpression): string {
    const { left, right, operatorToken } = node
    const operator = operatorToken.getText()
    // An assignment, a sum, and so on.
    if (!CHANGED.has(operator)) return this.#plain(node)
    const [some, other] = [this.#changed(left), this.#changed(right)]
    if (operator === '&&' || operator === '||') {
      const part = (of: ts.Node, text: string): string => {
        const id = this.#mutant(of, `${operator} without`)
        return operator === '&&' ? `(${SWITCH}.is(${id}) || ${text})` : `(!${SWITCH}.is(${id}) && ${text})`
      }
      return `(${part(left, some)} ${operator} ${part(right, other)})`
    }
    if (operator in MOVED) {
      const moved = `${SWITCH}.compare(${this.#mutant(node, 'moved by one')}, '${operator}', ${some}, ${other})`
      return `${SWITCH}.not(${this.#mutant(node, 'turned round')}, ${moved})`
    }
    if (operator === '===' || operator === '!==')
      return `${SWITCH}.not(${this.#mutant(node, 'turned round')}, ${some} ${operator} ${other})`
    // Bits that are taken together are worked out without effects.
    const id = this.#mutant(right, `${operator} without`)
    return `(${SWITCH}.is(${id}) ? ${some} : ${some} ${operator} ${other})`
  }
}

const CHANGED: ReadonlySet<string> = new Set(['&&', '||', '===', '!==', '&', '|', ...Object.keys(MOVED)])

/** What a statement is executed for is its effect. */
function isLeftOut(node: ts.Node): boolean {
  if (!ts.isExpressionStatement(node)) return false
  const { expression } = node
  // A field that is never set is another thing than a rule that does not hold.
  return !(ts.isCallExpression(expression) && expression.expression.kind === ts.SyntaxKind.SuperKeyword)
}

function isCondition(node: ts.Node): boolean {
  const { parent } = node
  return (
    (ts.isIfStatement(parent) && parent.expression === node) ||
    (ts.isConditionalExpression(parent) && parent.condition === node)
  )
}

function isErrnoOrReason(node: ts.Node): node is ts.StringLiteral {
  if (!ts.isStringLiteral(node)) return false
  const { parent } = node
  if (/^E[A-Z]+$/.test(node.text)) return !ts.isPropertyAssignment(parent) || parent.initializer === node
  return (
    ts.isBinaryExpression(parent) &&
    parent.operatorToken.kind === ts.SyntaxKind.EqualsToken &&
    /\.(reason|point)$/.test(parent.left.getText())
  )
}
