/**
 * Fills .cache/corpus with the BPF objects of Debian packages: node --import tsx
 * test/corpus/scan.ts [--force]
 *
 * fetch.sh brings the packages; each is unpacked, and every ELF64 relocatable file for BPF in it, a
 * file of its own or carved out of an executable or library, is stored once, by content. Does
 * nothing when the corpus is complete, unless forced. The ELF reader here is on purpose not that of
 * src/ebpf, which is to be tested.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { CACHE } from '../helpers/machine.ts'
import { CORPUS, CORPUS_INDEX, type CorpusObject, corpusFile, type Occurrence } from './corpus.ts'

const DEBS = join(CACHE, 'corpus-debs')
const EM_BPF = 247
const ET_REL = 1
const SHT_NOBITS = 8
/** Of the file header, and of each section header. */
const HEADER_SIZE = 64

type Extent = Pick<CorpusObject, 'size' | 'endian' | 'sections'>
type Origin = Omit<Occurrence, 'path'> & { suites: string[] }

/**
 * How far a BPF object that starts at the first byte reaches, and its sections; undefined if none
 * does.
 */
function bpfObject(bytes: Buffer): Extent | undefined {
  if (bytes.length < HEADER_SIZE || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2) return undefined
  const endian = bytes[5] === 1 ? 'little' : 'big'
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const u16 = (off: number) => view.getUint16(off, endian === 'little')
  const u32 = (off: number) => view.getUint32(off, endian === 'little')
  const u64 = (off: number) => Number(view.getBigUint64(off, endian === 'little'))
  if (u16(16) !== ET_REL || u16(18) !== EM_BPF) return undefined

  const headers = u64(40)
  const [fileHeader, sectionHeader, count, nameIndex] = [u16(52), u16(58), u16(60), u16(62)]
  let size = headers + count * HEADER_SIZE
  if (fileHeader !== HEADER_SIZE || sectionHeader !== HEADER_SIZE || nameIndex >= count) return undefined
  if (size > bytes.length) return undefined
  const header = (index: number) => headers + index * HEADER_SIZE
  for (let i = 0; i < count; i++) {
    if (u32(header(i) + 4) !== SHT_NOBITS) size = Math.max(size, u64(header(i) + 24) + u64(header(i) + 32))
  }
  if (size > bytes.length) return undefined
  const strings = u64(header(nameIndex) + 24)
  const sections = Array.from({ length: count - 1 }, (_, i) => {
    const start = strings + u32(header(i + 1))
    return bytes.toString('latin1', start, bytes.indexOf(0, start))
  })
  return { size, endian, sections }
}

/**
 * Every BPF object in a file: the file itself, or else at each place where an ELF header stands.
 */
function* objectsIn(bytes: Buffer): Generator<{ off?: number; bytes: Buffer; extent: Extent }> {
  const whole = bpfObject(bytes)
  if (whole !== undefined) {
    yield { bytes: bytes.subarray(0, whole.size), extent: whole }
    return
  }
  for (const byteOrder of [1, 2]) {
    const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, byteOrder, 1])
    for (let off = bytes.indexOf(magic); off >= 0; off = bytes.indexOf(magic, off + 1)) {
      const extent = bpfObject(bytes.subarray(off))
      if (extent !== undefined) yield { off, bytes: bytes.subarray(off, off + extent.size), extent }
    }
  }
}

/** Contents of a packaged file; what only looks compressed by its name is taken as it is. */
function contents(path: string): Buffer {
  const bytes = readFileSync(path)
  try {
    if (path.endsWith('.gz')) return gunzipSync(bytes)
    if (path.endsWith('.xz')) return execFileSync('xz', ['-dc', path], { maxBuffer: 2 ** 30, stdio: 'pipe' })
  } catch {
    // Test data of some packages.
  }
  return bytes
}

/** Packages by file: one file can be in more than one suite. */
function packages(): Map<string, Origin> {
  const all = new Map<string, Origin>()
  for (const line of readFileSync(join(DEBS, 'list.tsv'), 'utf8').trim().split('\n')) {
    const [suite, name, version, deb] = line.split('\t') as [string, string, string, string]
    const known = all.get(deb)
    if (known === undefined) all.set(deb, { package: name, version, suites: [suite] })
    else known.suites.push(suite)
  }
  return all
}

function scan(): void {
  const objects = new Map<string, CorpusObject & { found: Occurrence[] }>()
  let occurrences = 0
  mkdirSync(CORPUS, { recursive: true })
  for (const name of readdirSync(CORPUS)) if (/^[0-9a-f]{16}\.o$/.test(name)) rmSync(join(CORPUS, name))
  rmSync(CORPUS_INDEX, { force: true })
  for (const [deb, origin] of packages()) {
    const tree = mkdtempSync(join(tmpdir(), 'bpftoken-corpus-'))
    try {
      execFileSync('dpkg-deb', ['-x', join(DEBS, deb), tree])
      for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue
        const path = join(entry.parentPath, entry.name)
        for (const { off, bytes, extent } of objectsIn(contents(path))) {
          occurrences++
          const hash = createHash('sha256').update(bytes).digest('hex').slice(0, 16)
          const place = { ...origin, path: `/${relative(tree, path)}`, ...(off === undefined ? {} : { off }) }
          const known = objects.get(hash)
          if (known !== undefined) {
            known.found.push(place)
            continue
          }
          const at = off === undefined ? '' : `@${off.toString(16)}`
          const name = `${origin.package}_${origin.version}/${basename(path)}${at}`
          objects.set(hash, { hash, name, ...extent, found: [place] })
          writeFileSync(corpusFile({ hash }), bytes)
        }
      }
    } finally {
      rmSync(tree, { recursive: true, force: true })
    }
    if (process.stderr.isTTY) process.stderr.write(`\rcorpus: ${objects.size} objects `)
  }
  const sorted = [...objects.values()].sort((a, b) =>
    `${a.name} ${a.hash}` < `${b.name} ${b.hash}` ? -1 : 1,
  )
  // Last, because its presence says that the corpus is complete.
  writeFileSync(CORPUS_INDEX, `${JSON.stringify(sorted, null, 1)}\n`)
  console.log(`corpus: ${occurrences} occurrences of ${objects.size} distinct objects`)
}

if (process.argv.includes('--force') || !existsSync(CORPUS_INDEX)) {
  execFileSync(join(__dirname, 'fetch.sh'), { stdio: 'inherit' })
  scan()
}
