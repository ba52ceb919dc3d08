/**
 * The client library in C (native/client): what it reads is what JSON.parse reads, or refused; and
 * no bytes make it read beyond them, which AddressSanitizer watches.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import fc from 'fast-check'
import { Scratch } from '../../helpers/scratch.ts'

const compiler = process.env['CC'] ?? 'gcc'
const skip =
  spawnSync(compiler, ['--version']).status === 0
    ? false
    : `there is no compiler (${compiler}) to make it with`

/** The probe, as one process that answers frames in order. */
class Probe {
  readonly #child: ChildProcess
  #pending = Buffer.alloc(0)
  #wake: (() => void) | undefined
  #ended = false

  constructor(program: string) {
    this.#child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#child.stdin!.on('error', () => {})
    this.#child.stdout!.on('data', (data: Buffer) => {
      this.#pending = Buffer.concat([this.#pending, data])
      this.#wake?.()
    })
    this.#child.once('close', () => {
      this.#ended = true
      this.#wake?.()
    })
  }

  async #take(length: number): Promise<Buffer> {
    while (this.#pending.length < length) {
      if (this.#ended) throw new Error('the probe has ended')
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    const taken = this.#pending.subarray(0, length)
    this.#pending = this.#pending.subarray(length)
    return taken
  }

  async ask(letter: 'j' | 'q' | 'm' | 'e', bytes: Uint8Array | string): Promise<Buffer> {
    const body = Buffer.from(bytes as string)
    const head = Buffer.alloc(5, letter)
    head.writeUInt32LE(body.length, 1)
    this.#child.stdin!.write(Buffer.concat([head, body]))
    return await this.#take((await this.#take(4)).readUInt32LE(0))
  }

  /** The document as it was read; undefined: it was refused. */
  async json(text: Uint8Array | string): Promise<unknown> {
    const said = await this.ask('j', text)
    return said.length === 0 ? undefined : JSON.parse(said.toString())
  }

  async end(): Promise<number | null> {
    this.#child.stdin!.end()
    const [code] = (await once(this.#child, 'exit')) as [number | null]
    return code
  }
}

/** As JSON.parse has it; undefined: it refuses. */
function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes))
  } catch {
    return undefined
  }
}

describe('the client library in C', { skip }, () => {
  let probe: Probe
  const scratch = new Scratch()

  before(() => {
    const program = join(scratch.path, 'probe')
    const flags = ['-std=gnu11', '-D_GNU_SOURCE', '-O1', '-g', '-Wall', '-Wextra', '-Werror']
    const checks = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all']
    const source = join(__dirname, 'client-probe.c')
    const made = spawnSync(compiler, [...flags, ...checks, '-o', program, source], { encoding: 'utf8' })
    assert.equal(made.status, 0, made.stderr)
    probe = new Probe(program)
  })
  after(async () => {
    assert.equal(await probe.end(), 0, 'the sanitizers found nothing')
    scratch[Symbol.dispose]()
  })

  test('reads every document that JSON.stringify writes', async () => {
    const options = { maxDepth: 6, noUnicodeString: false }
    await fc.assert(
      fc.asyncProperty(fc.json(options), fc.boolean(), async (document, escaped) => {
        // As ASCII, with escapes, each other time; Chars of JSON.stringify that it leaves are well
        // formed.
        const text = escaped
          ? document.replace(/[^\x20-\x7e]/g, c => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
          : document
        if (/\\u0000/.test(text)) return
        assert.deepEqual(await probe.json(text), JSON.parse(text))
      }),
      { numRuns: 2000 },
    )
  })

  test('reads what runtimes write: escaped slashes, blanks, surrogate pairs, numbers', async () => {
    for (const text of [
      ' { "a\\/b" : [ ] , "c":\t{}\r\n} ',
      '"\\ud83d\\ude00 \\u00e9 \\" \\\\ \\b\\f\\n\\r\\t"',
      '[0,-0,1.5,-2e3,4E+5,6e-7,123456789012345678901234567890]',
      '[true,false,null]',
      '"\u{10ffff}\u{800}\x7f"',
    ])
      assert.deepEqual(await probe.json(text), JSON.parse(text), text)
  })

  test('refuses what is no document, or could be read in two ways', async () => {
    for (const text of [
      ...[
        '',
        ' ',
        '{',
        '[',
        '"',
        '{"a"',
        '{"a":',
        '{"a":1',
        '[1',
        '[1,',
        '1 2',
        '{}{}',
        'nul',
        'truee',
        'NaN',
      ],
      ...[
        '[1,]',
        '{"a":1,}',
        '[,1]',
        '{,}',
        '{a:1}',
        "{'a':1}",
        '//x\n1',
        '01',
        '+1',
        '.5',
        '1.',
        '1e',
        '-',
        '0x1',
      ],
      ...[
        '"\t"',
        '"\n"',
        '"\\x41"',
        '"\\u12"',
        '"\\u12g4"',
        '"\\ud800"',
        '"\\udc00"',
        '"\\ud800\\u0041"',
        '"\\',
      ],
      ...[
        '"\\u0000"',
        '{"a":1,"a":2}',
        '{"a":1,"\\u0061":2}',
        `${'['.repeat(33)}${']'.repeat(33)}`,
        '\ufeff1',
      ],
      `[${'1,'.repeat(5000)}1]`,
    ])
      assert.equal(await probe.json(text), undefined, text)
    for (const bytes of [
      '80',
      'c080',
      'c1bf',
      'e08080',
      'eda080',
      'f0808080',
      'f4908080',
      'f5808080',
      'c3',
      'e282',
      '00',
    ])
      assert.equal(await probe.json(Buffer.from(`22${bytes}22`, 'hex')), undefined, bytes)
    // Their twins.
    assert.deepEqual(await probe.json('{"a":1,"b":2}'), { a: 1, b: 2 })
    assert.notEqual(await probe.json(`${'['.repeat(32)}${']'.repeat(32)}`), undefined)
    assert.notEqual(await probe.json(`[${'1,'.repeat(4000)}1]`), undefined)
  })

  test('takes so many names in one object and no more, and finds the last one twice', async () => {
    const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `"name-${i}":${i}`)
    const most = 1024
    const text = `[{${names(most)}},{${names(most / 2)}}]`
    assert.deepEqual(await probe.json(text), JSON.parse(text))
    assert.equal(await probe.json(`{${names(most + 1)}}`), undefined)
    assert.equal(await probe.json(`{${[...names(most - 1), '"name-1022":1']}}`), undefined)
  })

  test('takes of random and of spoiled documents none that JSON.parse refuses, and reads the others alike', async () => {
    let taken = 0
    const spoil = fc
      .tuple(fc.json({ maxDepth: 3 }), fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.nat(2)), { maxLength: 4 }))
      .map(([document, edits]) => {
        let bytes = Buffer.from(document)
        for (const [at, value, how] of edits) {
          const i = bytes.length === 0 ? 0 : at % bytes.length
          const before = bytes.subarray(0, i)
          const middle = how === 0 ? Buffer.of(value) : Buffer.alloc(0)
          bytes = Buffer.concat([before, middle, bytes.subarray(how === 1 ? i : i + 1)])
        }
        return bytes
      })
    const some = fc.oneof(
      spoil,
      fc.uint8Array({ maxLength: 64 }).map(bytes => Buffer.from(bytes)),
    )
    await fc.assert(
      fc.asyncProperty(some, async bytes => {
        const read = await probe.json(bytes)
        if (read === undefined) return
        taken++
        assert.deepEqual(read, parsed(bytes), bytes.toString('hex'))
      }),
      { numRuns: 5000 },
    )
    assert.ok(taken > 500, `${taken} were documents still`)
  })

  test('quotes text as JSON, and none that is no UTF-8', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), async text => {
        if (text.includes('\0') || /\p{Surrogate}/u.test(text)) return
        assert.equal(JSON.parse((await probe.ask('q', text)).toString()), text)
      }),
    )
    assert.equal((await probe.ask('q', Buffer.from('61ff', 'hex'))).length, 0)
  })

  const http = async (text: string, letter: 'm' | 'e' = 'm'): Promise<string> =>
    (await probe.ask(letter, Buffer.from(text, 'latin1'))).toString('latin1')
  const HEAD = 'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n'

  test('reads an answer of HTTP by its length, in chunks, or to its end, wherever it is cut', async () => {
    const sized = `${HEAD}content-LENGTH:  5 \r\n\r\n{"a":`
    const chunked = `${HEAD}Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\nA\r\n":12345678\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n`
    assert.equal(await http(sized), 'whole 201 {"a":')
    assert.equal(await http(chunked), 'whole 201 {"a":12345678}')
    for (const whole of [sized, chunked])
      for (let cut = 0; cut < whole.length; cut++) {
        assert.equal(await http(whole.slice(0, cut)), 'more', whole.slice(0, cut))
        assert.equal(await http(whole.slice(0, cut), 'e'), 'bad', whole.slice(0, cut))
      }
    assert.equal(await http(`${HEAD}\r\nabc`), 'more')
    assert.equal(await http(`${HEAD}\r\nabc`, 'e'), 'whole 201 abc')
    assert.equal(await http('HTTP/1.1 204 No Content\r\n\r\n'), 'whole 204 ')
  })

  test('refuses an answer that says two things of its length, or is none', async () => {
    const ends = '\r\n\r\n12345'
    assert.equal(await http(`${HEAD}Content-Length: 5${ends}`), 'whole 201 12345')
    for (const [head, why] of [
      [`${HEAD}Content-Length: 5\r\nContent-Length: 4${ends}`, 'two lengths'],
      [`${HEAD}Content-Length: 5\r\nContent-Length: 5${ends}`, 'one length twice'],
      [`${HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked${ends}`, 'a length, and chunks'],
      [`${HEAD}Transfer-Encoding: gzip, chunked${ends}`, 'an encoding'],
      [`${HEAD}Content-Length: -1${ends}`, 'less than nothing'],
      [`${HEAD}Content-Length: 5, 5${ends}`, 'a list'],
      [`${HEAD}Content-Length: 0x5${ends}`, 'a hexadecimal length'],
      [`${HEAD}Content-Length: 99999999999999999999${ends}`, 'more than there can be'],
      [`${HEAD}Content-Length : 5${ends}`, 'a blank before the colon'],
      [`${HEAD} Content-Length: 5${ends}`, 'a folded line'],
      [`${HEAD}Content-Length: 4${ends}`, 'more than it says'],
      [`${HEAD}Nonsense${ends}`, 'a line without a colon'],
      [`${HEAD}X: a\0b${ends}`, 'a zero in a line'],
      ['HTTP/1.1 201 Created\nContent-Length: 0\n\n', 'lines without CR'],
      ['HTTP/1.0 201 Created\r\n\r\n', 'another version'],
      ['HTTP/1.1 100 Continue\r\n\r\n', 'what nobody asked for'],
      ['HTTP/1.1 2010\r\n\r\n', 'no status'],
      ['SSH-2.0-x\r\n', 'another protocol'],
      [`HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(4000)}`, 'a head without end'],
      [`${HEAD}Transfer-Encoding: chunked\r\n\r\n5;x=y\r\n12345\r\n0\r\n\r\n`, 'extensions of chunks'],
      [`${HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\n12345X\n`, 'no end of a chunk'],
      [`${HEAD}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n`, 'a chunk that is too large'],
      [`${HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore`, 'more after the last'],
    ])
      assert.equal(await http(head!), 'bad', why)
  })

  test('survives any bytes as an answer', async () => {
    const pieces = fc.constantFrom(
      ...[
        'HTTP/1.1 ',
        '200',
        ' OK',
        '\r\n',
        '\n',
        ':',
        'Content-Length: ',
        'Transfer-Encoding: chunked',
        '0',
        '5',
        'ff',
        '\0',
      ],
    )
    const some = fc.oneof(
      fc.array(pieces, { maxLength: 30 }).map(all => all.join('')),
      fc
        .array(pieces, { maxLength: 20 })
        .map(all => `${HEAD}Transfer-Encoding: chunked\r\n\r\n${all.join('')}`),
      fc.uint8Array({ maxLength: 200 }).map(bytes => Buffer.from(bytes).toString('latin1')),
    )
    await fc.assert(
      fc.asyncProperty(some, fc.constantFrom('m' as const, 'e' as const), async (text, letter) => {
        assert.match(await http(text, letter), /^(more|bad|whole \d{3} )/)
      }),
      { numRuns: 5000 },
    )
  })
})
