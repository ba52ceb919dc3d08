import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { compiled } from '../../../../scripts/compiled.ts'
import {
  encodeUsdtSpec,
  type UsdtArgument,
  usdtArguments,
  usdtNotes,
} from '../../../../src/ebpf/attach/usdt-note.ts'
import { Executable } from '../../../../src/ebpf/elf/executable.ts'
import { matchingSymbols, symbolOffset } from '../../../../src/ebpf/elf/symbol.ts'
import { BpftokenError } from '../../../../src/errors.ts'
import { ROOT } from '../../../helpers/machine.ts'

const X64 = 62
const ARM64 = 183

const plain = { signed: false, value: 0n, register: 0, index: 0, scale: 0 }

test('usdtArguments reads what compilers write for x86-64, as libbpf reads it', () => {
  const cases: [args: string, expected: Partial<UsdtArgument>[]][] = [
    ['', []],
    ['-4@$-9', [{ kind: 0, bytes: 4, signed: true, value: -9n }]],
    ['8@$-1', [{ kind: 0, bytes: 8, value: -1n }]],
    [
      '8@%rdi 4@%r8d',
      [
        { kind: 1, bytes: 8, register: 112 },
        { kind: 1, bytes: 4, register: 72 },
      ],
    ],
    [
      '1@%dil -2@%ax',
      [
        { kind: 1, bytes: 1, register: 112 },
        { kind: 1, bytes: 2, signed: true, register: 80 },
      ],
    ],
    ['8@%r10', [{ kind: 1, bytes: 8, register: 56 }]],
    ['-4@-20(%rbp)', [{ kind: 2, bytes: 4, signed: true, value: -20n, register: 32 }]],
    ['8@(%rsp)', [{ kind: 2, bytes: 8, register: 152 }]],
    ['1@-96(%rbp,%rax,8)', [{ kind: 3, bytes: 1, value: -96n, register: 32, index: 80, scale: 3 }]],
    ['1@(%rbp,%r15)', [{ kind: 3, bytes: 1, register: 32, index: 0, scale: 0 }]],
    [
      '8@( %rdx , %rcx , 4 ) 4@$7',
      [
        { kind: 3, bytes: 8, register: 96, index: 88, scale: 2 },
        { kind: 0, bytes: 4, value: 7n },
      ],
    ],
  ]
  for (const [args, expected] of cases)
    assert.deepEqual(
      usdtArguments(X64, args),
      expected.map(one => ({ ...plain, ...one })),
      args,
    )
})

test('usdtArguments reads what compilers write for arm64', () => {
  const cases: [args: string, expected: Partial<UsdtArgument>[]][] = [
    ['-8@x4', [{ kind: 1, bytes: 8, signed: true, register: 32 }]],
    [
      '4@w30 8@sp',
      [
        { kind: 1, bytes: 4, register: 240 },
        { kind: 1, bytes: 8, register: 248 },
      ],
    ],
    ['-4@[sp, 96]', [{ kind: 2, bytes: 4, signed: true, value: 96n, register: 248 }]],
    [
      '8@[x0] 4@5',
      [
        { kind: 2, bytes: 8, register: 0 },
        { kind: 0, bytes: 4, value: 5n },
      ],
    ],
    ['8@[x19,-16]', [{ kind: 2, bytes: 8, value: -16n, register: 152 }]],
  ]
  for (const [args, expected] of cases)
    assert.deepEqual(
      usdtArguments(ARM64, args),
      expected.map(one => ({ ...plain, ...one })),
      args,
    )
})

test('usdtArguments refuses what it does not understand, and never guesses', () => {
  for (const args of [
    '8@table(%rip)',
    '8f@%xmm0',
    '8@%xmm0',
    '3@%eax',
    '8@(%rax,%rbx,3)',
    'x',
    '8@',
    '@%rax',
  ])
    assert.throws(() => usdtArguments(X64, args), { code: 'BPFTOKEN_NOT_SUPPORTED' }, args)
  for (const args of ['8@x31', '8@d0', '8@[q1]', '8@%rax'])
    assert.throws(() => usdtArguments(ARM64, args), { code: 'BPFTOKEN_NOT_SUPPORTED' }, args)
  assert.throws(() => usdtArguments(X64, Array(13).fill('4@$1').join(' ')), {
    code: 'BPFTOKEN_NOT_SUPPORTED',
  })
  assert.equal(usdtArguments(X64, Array(12).fill('4@$1').join(' ')).length, 12)
  assert.throws(() => usdtArguments(8, '4@$1'), { code: 'BPFTOKEN_NOT_SUPPORTED', message: /machine 8/ })
})

test('numbers in arguments are of 64 bits, signed or not; longer ones are refused at once', () => {
  for (const [args, value] of [
    ['8@$18446744073709551615', -1n],
    ['8@$9223372036854775808', -(2n ** 63n)],
    ['8@$-9223372036854775808', -(2n ** 63n)],
  ] as const)
    assert.equal(usdtArguments(X64, args)[0]!.value, value)
  for (const args of ['8@$18446744073709551616', '8@$-9223372036854775809', `8@$${'9'.repeat(1 << 22)}`])
    assert.throws(() => usdtArguments(X64, args), { code: 'BPFTOKEN_NOT_SUPPORTED' })
})

test('what a file says of arguments is shown in part, and harmless', () => {
  const args = `\u001b[2J${'x'.repeat(100_000)}`
  assert.throws(
    () => usdtArguments(X64, args),
    (error: BpftokenError) => {
      assert.ok(error.message.length < 500)
      assert.match(error.message, /^[\x20-\x7e]+$/)
      assert.match(String(error.context['args']), /^\\u\{1b\}\[2Jxxx/)
      return true
    },
  )
})

/** A file of `segments` of 16 bytes each, and a note of 64 bytes for each of `places`. */
function withNotes(segments: number, places: readonly number[]): Buffer {
  const names = Buffer.from('\0.note.stapsdt\0.names\0')
  const [segmentsAt, notesAt] = [64, 64 + segments * 56]
  const namesAt = notesAt + places.length * 64
  const bytes = Buffer.alloc(namesAt + names.length + 1 + 3 * 64)
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  const sectionsAt = bytes.length - 3 * 64
  bytes.writeUInt16LE(X64, 18)
  bytes.writeBigUInt64LE(64n, 32)
  bytes.writeBigUInt64LE(BigInt(sectionsAt), 40)
  for (const [i, value] of [segments, 64, 3, 2].entries()) bytes.writeUInt16LE(value, 56 + i * 2)
  for (let i = 0; i < segments; i++) {
    const at = segmentsAt + i * 56
    bytes.writeUInt32LE(1, at)
    bytes.writeUInt32LE(1, at + 4)
    bytes.writeBigUInt64LE(BigInt(i * 16 + 4096), at + 8)
    // The last one first.
    bytes.writeBigUInt64LE(BigInt((segments - i) * 32), at + 16)
    bytes.writeBigUInt64LE(16n, at + 40)
  }
  for (const [i, place] of places.entries()) {
    const at = notesAt + i * 64
    for (const [n, word] of [8, 44, 3].entries()) bytes.writeUInt32LE(word, at + n * 4)
    bytes.write('stapsdt\0', at + 12)
    bytes.writeBigUInt64LE(BigInt(place), at + 20)
    bytes.write('p\0probe\0\0', at + 44)
  }
  names.copy(bytes, namesAt)
  for (const [i, [name, type, off, size]] of [
    [0, 0, 0, 0],
    [1, 7, notesAt, places.length * 64],
    [15, 3, namesAt, names.length],
  ].entries()) {
    const at = sectionsAt + i * 64
    bytes.writeUInt32LE(name!, at)
    bytes.writeUInt32LE(type!, at + 4)
    bytes.writeBigUInt64LE(BigInt(off!), at + 24)
    bytes.writeBigUInt64LE(BigInt(size!), at + 32)
  }
  return bytes
}

test('a place is found among as many segments as there may be, and not between them', () => {
  const offs = (segments: number, places: readonly number[]) =>
    usdtNotes(new Executable(withNotes(segments, places), 'made')).map(({ off }) => off)
  assert.deepEqual(offs(3, [32, 47, 96]), [4128n, 4143n, 4096n])
  for (const place of [0, 31, 48, 112])
    assert.throws(() => offs(3, [place]), { code: 'BPFTOKEN_FORMAT', message: /p:probe is where no code is/ })
  // Each with each would be ten thousand million comparisons.
  const [segments, count] = [65535, 150_000]
  const found = offs(segments, Array(count).fill(32))
  assert.deepEqual([found.length, found.at(-1)], [count, BigInt((segments - 1) * 16 + 4096)])
})

test('encodeUsdtSpec writes the layout of usdt.bpf.h before and since libbpf 1.7', () => {
  const [memory, indexed] = usdtArguments(X64, '-2@128(%rsp) 8@8(%rdx,%rcx,8)')
  const old = Buffer.from(encodeUsdtSpec(208, [memory!], 5n))
  assert.equal(old.subarray(0, 16).toString('hex'), '8000000000000000' + '02000000' + '9800' + '01' + '30')
  assert.deepEqual([old.readBigUInt64LE(192), old.readInt16LE(200)], [5n, 1])
  const now = Buffer.from(encodeUsdtSpec(304, [memory!, indexed!], 5n))
  assert.equal(
    now.subarray(0, 24).toString('hex'),
    '8000000000000000' + '0200000000009800' + '0130000000000000',
  )
  // The index is 88, the scale 3.
  assert.equal(
    now.subarray(24, 48).toString('hex'),
    '0800000000000000' + '0300583000006000' + '0000000000000000',
  )
  assert.deepEqual([now.readBigUInt64LE(288), now.readInt16LE(296)], [5n, 2])
  assert.throws(() => encodeUsdtSpec(208, [indexed!], 0n), { code: 'BPFTOKEN_NOT_SUPPORTED' })
  assert.throws(() => encodeUsdtSpec(200, [], 0n), { code: 'BPFTOKEN_NOT_SUPPORTED' })
})

test('files of any contents are refused with an error of ours, or read', {
  skip: process.arch !== 'x64',
}, () => {
  const bytes = readFileSync(compiled(`${ROOT}/test/kernel/ebpf/probed.c`))
  assert.equal(usdtNotes(new Executable(bytes, 'probed')).length, 6)
  const section = new Executable(bytes, 'probed').section('.note.stapsdt')!
  let state = 7
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  let errors = 0
  for (let round = 0; round < 3000; round++) {
    const copy = Buffer.from(bytes)
    // The header, the notes, the section headers, or anything.
    const ranges = [
      [0, 64],
      [section.off, section.off + section.sizeBytes],
      [bytes.length - 2400, bytes.length],
      [0, bytes.length],
    ]
    const [from, to] = ranges[round % ranges.length]!
    for (let i = 0; i <= random(4); i++) copy[from! + random(to! - from!)] = random(256)
    try {
      const file = new Executable(round % 7 === 0 ? copy.subarray(0, random(copy.length)) : copy, 'mutated')
      for (const { args } of usdtNotes(file)) if (!args.includes('table')) usdtArguments(file.machine, args)
      symbolOffset(file, 'main')
      matchingSymbols(file, 'ma*')
    } catch (error) {
      assert.ok(error instanceof BpftokenError, String(error))
      errors++
    }
  }
  assert.ok(errors > 100 && errors < 2900, `${errors} errors`)
})

test('of many symbol tables the first counts, and the others take no time', {
  skip: process.arch !== 'x64',
  timeout: 60_000,
}, () => {
  const bytes = readFileSync(compiled(`${ROOT}/test/kernel/ebpf/probed.c`))
  const main = symbolOffset(new Executable(bytes, 'probed'), 'main')
  const [off, count] = [Number(bytes.readBigUInt64LE(40)), bytes.readUInt16LE(60)]
  const heads = bytes.subarray(off, off + count * 64)
  const symtab = new Executable(bytes, 'probed').section('.symtab')!.index
  const copy = Buffer.from(heads.subarray(symtab * 64, symtab * 64 + 64))
  // As large as a table in this file can be.
  copy.writeBigUInt64LE(0n, 24)
  copy.writeBigUInt64LE(4n * 1024n * 1024n, 32)
  const many = Buffer.concat([bytes, heads, ...Array(65_000 - count).fill(copy)])
  many.writeBigUInt64LE(BigInt(bytes.length), 40)
  many.writeUInt16LE(65_000, 60)
  const file = new Executable(many, 'many')
  assert.equal(symbolOffset(file, 'main'), main)
  assert.throws(() => symbolOffset(file, 'no_such_function'), { code: 'BPFTOKEN_NOT_FOUND' })
})
