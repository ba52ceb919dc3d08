/** What we read in objects of Debian packages, beside what libbpf reads in them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { MapDefinition } from '../../../src/ebpf/object/map-def.ts'
import {
  type ObjectMap,
  type ObjectProgram,
  type ObjectSpec,
  parseObject,
} from '../../../src/ebpf/object/spec.ts'
import { ATTACH_TYPES, MAP_TYPES, PROG_TYPES } from '../../../src/ebpf/type-names.ts'
import { FormatError } from '../../../src/errors.ts'
import { corpusFile, corpusObjects } from '../../corpus/corpus.ts'
import {
  askOracle,
  needsOracle,
  type OracleAnswer,
  type OracleMap,
  type OracleProgram,
} from '../../corpus/oracle.ts'

interface Reading {
  readonly hash: string
  readonly name: string
  readonly spec: ObjectSpec | undefined
  readonly refusal: string
  readonly oracle: OracleAnswer
}

function readAll(): Reading[] {
  const objects = corpusObjects()
  const answers = askOracle('open', objects.map(corpusFile))
  return objects.map(({ hash, name }, i) => {
    const oracle = answers[i]!
    try {
      return { hash, name, oracle, spec: parseObject(readFileSync(corpusFile({ hash }))), refusal: '' }
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      return { hash, name, oracle, spec: undefined, refusal: error.message }
    }
  })
}

const DATA: ReadonlySet<string> = new Set(['data', 'rodata', 'bss', 'kconfig'])

const PAGE_BYTES = 4096

/** libbpf makes whole pages of ring buffers at once, and we when they are made. */
function entriesOf({ type, maxEntries }: MapDefinition): number {
  const isRing = type === 'ringbuf' || type === 'user_ringbuf'
  if (!isRing || maxEntries === 0) return maxEntries
  return PAGE_BYTES * 2 ** Math.max(0, Math.ceil(Math.log2(maxEntries / PAGE_BYTES)))
}

/** Of the name of .bss.NAME, which libbpf cuts as the kernel will. */
const NAME_CHARS = 15

/** One line for one map; inner maps have names that nobody sees. */
function ourMap(map: MapDefinition, { autocreate, kind }: Partial<ObjectMap> = {}): string {
  return [
    ...[
      kind === 'bss' ? map.name.slice(0, NAME_CHARS) : map.name,
      map.type,
      map.keyBytes,
      map.valueBytes,
      entriesOf(map),
      `flags ${map.flags}`,
    ],
    ...[
      `extra ${map.extra}`,
      `node ${map.numaNode ?? 0}`,
      map.pinByName ? 'pinned' : '',
      DATA.has(kind!) ? kind : '',
    ],
    ...[autocreate === false ? 'on demand' : ''],
    ...[map.inner === undefined ? '' : `of [${ourMap({ ...map.inner, name: '' })}]`],
  ].join(' ')
}

function theirMap(map: OracleMap): string {
  const kind = map.internal ? (/\.(data|rodata|bss|kconfig)/.exec(map.name)?.[1] ?? '') : ''
  // Maps of global data are called after their object too.
  const name = map.internal ? map.name.slice(Math.max(map.name.indexOf('.'), 0)) : map.name
  return [
    ...[name, MAP_TYPES.word(map.type), map.keyBytes, map.valueBytes, map.maxEntries, `flags ${map.flags}`],
    ...[`extra ${map.extra}`, `node ${map.numaNode}`, map.pinned ? 'pinned' : '', kind],
    ...[map.autocreate ? '' : 'on demand'],
    ...[map.inner === null ? '' : `of [${theirMap({ ...map.inner, name: '', autocreate: true })}]`],
  ].join(' ')
}

/** libbpf's table has no attach type for these, and gives them one when it loads them. */
const WHEN_LOADED = /^usdt(\/|$)/
/** Newer than the libbpf that is asked. */
const NEWER = /^((fentry|fexit|fsession)\.multi|(raw_tp|raw_tracepoint|tp|tracepoint|tp_btf)\.s)/

function ourProgram(program: ObjectProgram): string {
  const { rule, name, autoload, section } = program
  const attachType = WHEN_LOADED.test(section) ? 0 : ATTACH_TYPES.number(rule?.attachType ?? 0)
  const known = NEWER.test(section) ? undefined : rule
  const type = PROG_TYPES.word(known?.type ?? 0)
  return programLine(name, section, type, known === undefined ? 0 : attachType, autoload)
}

function theirProgram({ name, section, type, attachType, autoload }: OracleProgram): string {
  // libbpf 1.8 leaves out the `?`; what is old-fashioned keeps what it says.
  section = section.replace(/^\?/, '')
  return programLine(name, section, PROG_TYPES.word(type), attachType, autoload)
}

function programLine(name: string, section: string, type: string, attachType: number, load: boolean): string {
  // Which maps are made decides for these, and libbpf looks at that later.
  const demand = load || type === 'struct_ops' ? '' : 'on demand'
  return `${name} in ${section}: ${type} ${ATTACH_TYPES.word(attachType)} ${demand}`
}

test('parseObject() reads what libbpf reads', needsOracle(), async t => {
  const readings = readAll()

  await t.test('it refuses no object that libbpf opens', t => {
    const count = { both: 0, 'libbpf only': 0, 'we only': 0, neither: 0 }
    const refused: string[] = []
    for (const { hash, name, spec, refusal, oracle } of readings) {
      const theirs = oracle.error === 0
      if (spec !== undefined) count[theirs ? 'both' : 'we only']++
      else count[theirs ? 'libbpf only' : 'neither']++
      if (theirs && spec === undefined) refused.push(`${hash} ${name}: ${refusal}`)
    }
    t.diagnostic(`opened by ${JSON.stringify(count)}`)
    assert.deepEqual(refused, [])
  })

  await t.test('programs and maps are the same', t => {
    const different: string[] = []
    const count = { objects: 0, programs: 0, maps: 0 }
    for (const { hash, name, spec, oracle } of readings) {
      if (spec === undefined || oracle.error !== 0) continue
      count.objects++
      count.programs += oracle.programs!.length
      count.maps += oracle.maps!.length
      const ours = [
        ...spec.programs.map(program => ourProgram(program)).sort(),
        ...spec.maps.map(map => ourMap(map, map)).sort(),
      ]
      const theirs = [...oracle.programs!.map(theirProgram).sort(), ...oracle.maps!.map(theirMap).sort()]
      if (ours.join('\n') !== theirs.join('\n')) {
        different.push(`${hash} ${name}`)
        const missing = theirs.filter(line => !ours.includes(line)).slice(0, 3)
        const extra = ours.filter(line => !theirs.includes(line)).slice(0, 3)
        different.push(...extra.map(line => `  ours   ${line}`), ...missing.map(line => `  libbpf ${line}`))
      }
    }
    t.diagnostic(`compared ${JSON.stringify(count)}`)
    assert.deepEqual(different, [])
  })
})
