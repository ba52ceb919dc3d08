/**
 * USDT probes of a program of ours, whose arguments are known, and of Debian's Python; and links of
 * many uprobes by name and pattern. Programs read arguments by libbpf's own usdt.bpf.h.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { compiled } from '../../../scripts/compiled.ts'
import { attachKprobeMulti, attachUprobeMulti } from '../../../src/ebpf/attach/many.ts'
import { attachProgram } from '../../../src/ebpf/attach/section.ts'
import { attachUprobe } from '../../../src/ebpf/attach/trace.ts'
import { attachUsdt } from '../../../src/ebpf/attach/usdt.ts'
import { Features } from '../../../src/ebpf/kernel/features.ts'
import type { Link } from '../../../src/ebpf/link.ts'
import { type LoadedObject, loadObject } from '../../../src/ebpf/load/object.ts'
import { GlobalVariables } from '../../../src/ebpf/object/global-variables.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { CACHE, kernelSince, needsTokens, ROOT } from '../../helpers/machine.ts'
import { errno, kernelTest } from './fixture.ts'

const OBJECT = join(ROOT, 'test/fixtures/modern/usdt.bpf.o')
/** A tool of bcc's, of Debian's package libbpf-tools, which asks for no arguments. */
const JAVAGC = join(CACHE, 'corpus/0afc8ec0a85bbe88.o')

function load(...only: string[]): Promise<LoadedObject> {
  return loadObject(parseObject(readFileSync(OBJECT), { name: 'usdt' }), { token: null, only })
}

interface Hit {
  readonly cookie: bigint
  readonly args: readonly bigint[]
  readonly pid: number
}

function hitsIn(ring: RingBuffer): Hit[] {
  const hits: Hit[] = []
  ring.drain(record => {
    const bytes = Buffer.from(record)
    const count = bytes.readUInt32LE(104)
    hits.push({
      cookie: bytes.readBigUInt64LE(0),
      args: Array.from({ length: count }, (_, i) => bytes.readBigInt64LE(8 + 8 * i)),
      pid: bytes.readUInt32LE(108),
    })
  })
  return hits
}

/** The program with probes, running. */
class Probed implements Disposable {
  readonly path = compiled(join(__dirname, 'probed.c'))
  readonly #child: ChildProcess = spawn(this.path, { stdio: ['pipe', 'pipe', 'inherit'] })

  get pid(): number {
    return this.#child.pid!
  }

  /** Hits each probe once; gives how many watch `kinds`. */
  async hit(): Promise<number> {
    const answer = once(this.#child.stdout!, 'data')
    this.#child.stdin!.write('x')
    const [data] = (await answer) as [Buffer]
    return Number(data.toString())
  }

  async end(): Promise<void> {
    this.#child.stdin!.end()
    await once(this.#child, 'exit')
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}

function usdtTest(name: string, run: () => Promise<void>, since: [number, number] = [6, 6]): void {
  const why =
    process.arch !== 'x64'
      ? 'probed.c is for x86-64'
      : kernelSince(...since)
        ? undefined
        : `it is since Linux ${since.join('.')}`
  if (why === undefined) kernelTest(name, run)
  else test(name, { skip: why })
}

usdtTest('arguments are what they are, wherever a compiler put them', async () => {
  using object = await load('on_probe')
  using ring = new RingBuffer(object.map('hits'))
  using probed = new Probed()
  const target = { path: probed.path, provider: 'bpftoken', pid: probed.pid }
  {
    using link = attachUsdt(object, 'on_probe', { ...target, name: 'kinds', cookie: 0xdead_beef_0000_0001n })
    assert.equal(link.info().type, 'uprobe_multi')
    assert.equal(await probed.hit(), 1, 'its semaphore is raised')
  }
  assert.deepEqual(hitsIn(ring), [
    {
      cookie: 0xdead_beef_0000_0001n,
      args: [-9n, 0x1122_3344_5566_7788n, 0x5566_7788n, 0x7788n, 0x88n, -5n, -7n, 100n, 104n],
      pid: probed.pid,
    },
  ])
  assert.equal(await probed.hit(), 0, 'its semaphore is let go')
  assert.deepEqual(hitsIn(ring), [])
  await probed.end()
})

usdtTest('a probe at several places tells which, one without arguments has none', async () => {
  using object = await load('on_probe')
  using ring = new RingBuffer(object.map('hits'))
  using probed = new Probed()
  const target = { path: probed.path, provider: 'bpftoken', pid: probed.pid }
  const argsOf = (): bigint[][] => hitsIn(ring).map(({ args }) => [...args])
  const tries: [name: string, expected: bigint[][]][] = [
    ['place', [[1n], [2n]]],
    ['bare', [[]]],
    ['idle', [[3n]]],
  ]
  for (const [name, expected] of tries) {
    const link: Link = attachUsdt(object, 'on_probe', { ...target, name })
    try {
      await probed.hit()
    } finally {
      link.close()
    }
    assert.deepEqual(argsOf(), expected, name)
  }
  assert.throws(() => attachUsdt(object, 'on_probe', { ...target, name: 'odd' }), {
    code: 'BPFTOKEN_NOT_SUPPORTED',
    message: /8@table\(%rip\)/,
  })
  assert.throws(() => attachUsdt(object, 'on_probe', { ...target, name: 'nothing' }), {
    code: 'BPFTOKEN_NOT_FOUND',
    hint: /bpftoken:kinds/,
  })
  await probed.end()
})

usdtTest('the same arguments take one place in the map, and too many are refused', async () => {
  const spec = parseObject(readFileSync(OBJECT), { name: 'usdt' })
  using object = await loadObject(spec, {
    token: null,
    only: ['on_probe'],
    maps: { __bpf_usdt_specs: { maxEntries: 2 } },
  })
  const target = { path: compiled(join(__dirname, 'probed.c')), provider: 'bpftoken' }
  for (let i = 0; i < 5; i++) attachUsdt(object, 'on_probe', { ...target, name: 'place' }).close()
  assert.throws(() => attachUsdt(object, 'on_probe', { ...target, name: 'kinds' }), {
    code: 'BPFTOKEN_INPUT',
  })
})

const PYTHON = '/usr/bin/python3.11'

if (existsSync(PYTHON) && readFileSync(PYTHON).includes('gc__start'))
  usdtTest("a section names a probe of Debian's Python, found by its name alone", async () => {
    using object = await load('on_python')
    using ring = new RingBuffer(object.map('hits'))
    using _link = attachProgram(object, 'on_python')
    // Collects the two youngest of its three generations.
    const code = 'import gc, os; gc.disable(); gc.collect(1); gc.collect(0); print(os.getpid())'
    const pid = Number(execFileSync(PYTHON, ['-c', code], { encoding: 'utf8' }))
    const generations = hitsIn(ring).flatMap(hit => (hit.pid === pid ? [hit.args] : []))
    // When it ends, it collects everything.
    assert.deepEqual(generations.filter(([first]) => first !== 2n).slice(-2), [[1n], [0n]])
  })
else test("a section names a probe of Debian's Python", { skip: `${PYTHON} has no probes here` })

if (existsSync(JAVAGC))
  usdtTest("bcc's javagc, which asks for no arguments, attaches to every probe that there is", async () => {
    using object = await loadObject(parseObject(readFileSync(JAVAGC)), { token: null })
    assert.equal(object.maps.has('__bpf_usdt_specs'), false)
    using probed = new Probed()
    const target = { path: probed.path, provider: 'bpftoken', name: 'kinds', pid: probed.pid }
    const links = [...object.programs.keys()].map(program => attachUsdt(object, program, target))
    try {
      assert.equal(links.length, 4)
      // The kernel counts each place once.
      assert.equal(await probed.hit(), 1)
    } finally {
      for (const link of links) link.close()
    }
    await probed.end()
  })
else test("bcc's javagc attaches", { skip: '.cache/corpus is missing: run `make corpus`' })

function counter(object: LoadedObject, name: string): number {
  const globals = new GlobalVariables(
    object.spec.btf!.types,
    object.spec.maps.find(map => map.kind === 'bss')!.valueTypeId,
  )
  return Number(globals.get(object.map('.bss').lookup(0)!, name))
}

test('kernel functions by pattern, at entry or in a session', needsTokens(), async t => {
  if ((await new Features(null).has('kprobe_multi')) !== true)
    return t.skip('this kernel has no kprobe_multi links (CONFIG_FPROBE)')
  const programs = ['on_kernel_multi', ...(kernelSince(6, 10) ? ['on_kernel_session'] : [])]
  using object = await load(...programs)
  {
    const links = programs.map(program => attachProgram(object, program))
    for (let i = 0; i < 5; i++) readFileSync('/proc/self/stat')
    assert.equal(links[0]!.info().kprobes?.count, 1)
    for (const link of links) link.close()
  }
  assert.ok(counter(object, 'by_kernel_multi') >= 5)
  // Both ends of a call.
  if (programs.length === 2) assert.ok(counter(object, 'by_kernel_session') >= 10)
  const program = object.program('on_kernel_multi')
  assert.throws(() => attachKprobeMulti(program, { pattern: 'no_such_*' }), { code: 'BPFTOKEN_NOT_FOUND' })
  assert.throws(() => attachKprobeMulti(program, { symbols: ['vfs_open'], cookies: [] }), {
    code: 'BPFTOKEN_INPUT',
  })
  return undefined
})

/** Node asks libc for it each time. */
function call(): void {
  for (let i = 0; i < 5; i++) assert.ok(process.ppid > 0)
}

usdtTest('sections name many functions of a library by pattern and by list', async () => {
  using object = await load('on_multi', 'on_multi_return')
  {
    using _multi = attachProgram(object, 'on_multi')
    using _return = attachProgram(object, 'on_multi_return')
    call()
    process.getuid!()
  }
  assert.ok(counter(object, 'by_multi') >= 5)
  assert.ok(counter(object, 'by_multi_return') >= 6)
  const before = counter(object, 'cookies')
  {
    using _link = attachUprobeMulti(object.program('on_multi'), {
      path: 'libc.so.6',
      symbols: ['getppid', 'getuid'],
      cookies: [100n, 1000n],
      pid: process.pid,
    })
    call()
    process.getuid!()
  }
  // Whoever else asks libc is not counted.
  assert.equal(counter(object, 'cookies') - before, 5 * 100 + 1000)
})

async function session(): Promise<void> {
  using object = await load('on_session')
  {
    using _link = attachProgram(object, 'on_session')
    call()
  }
  assert.ok(counter(object, 'by_session_entry') >= 5)
  assert.ok(counter(object, 'by_session_return') >= 5)
}
usdtTest('a session sees entry and return of the same calls', session, [6, 13])

usdtTest('a function is found by its version, and what cannot be is refused', async () => {
  using object = await load('on_multi')
  const program = object.program('on_multi')
  const path = 'libc.so.6'
  using _versioned = attachUprobeMulti(program, { path, symbols: ['pthread_cond_wait@GLIBC_2.3.2'] })
  assert.throws(() => attachUprobeMulti(program, { path, symbols: ['getppid@GLIBC_9'] }), {
    code: 'BPFTOKEN_NOT_FOUND',
  })
  assert.throws(() => attachUprobeMulti(program, { path, pattern: 'no_such_*' }), {
    code: 'BPFTOKEN_NOT_FOUND',
  })
  assert.throws(() => attachUprobeMulti(program, { path, symbols: ['getppid'], offs: [1n] }), {
    code: 'BPFTOKEN_INPUT',
  })
  assert.throws(() => attachUprobeMulti(program, { path, symbols: ['getppid'], cookies: [] }), {
    code: 'BPFTOKEN_INPUT',
  })
  assert.throws(
    () => attachUprobeMulti(program, { path, symbols: ['getppid'], pid: 2 ** 22 }),
    errno('ESRCH'),
  )
  // It was loaded for many places.
  assert.throws(() => attachUprobe(program, { path, symbol: 'getppid' }), errno('EINVAL'))
  assert.throws(() => attachUprobeMulti(program, { path: '/dev/null', symbols: ['x'] }), {
    code: 'BPFTOKEN_NOT_FOUND',
  })
})
