/**
 * Programs that watch the kernel or other processes count what they are attached to, and nothing
 * more once their link is closed. Which kinds a kernel has differs; each skip says what is missing.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { attachUprobeMulti } from '../../../src/ebpf/attach/many.ts'
import { attachProgram } from '../../../src/ebpf/attach/section.ts'
import { attachKprobe, attachUprobe } from '../../../src/ebpf/attach/trace.ts'
import { Features } from '../../../src/ebpf/kernel/features.ts'
import type { Link } from '../../../src/ebpf/link.ts'
import { type LoadedObject, loadObject } from '../../../src/ebpf/load/object.ts'
import { GlobalVariables } from '../../../src/ebpf/object/global-variables.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'

before(() => traceFds())
after(async () => {
  await endExecutors()
  assert.deepEqual(openFds(), [])
})

const CALLS = 5

/**
 * getppid(2), through libc, which Node asks each time; and a file is opened, for which the kernel
 * calls vfs_open.
 */
function call(): void {
  for (let i = 0; i < CALLS; i++) {
    assert.ok(process.ppid >= 0)
    readFileSync('/proc/self/stat')
  }
}

function counter(object: LoadedObject, name: string): number {
  const bss = object.spec.maps.find(map => map.kind === 'bss')!
  const globals = new GlobalVariables(object.spec.btf!.types, bss.valueTypeId)
  return Number(globals.get(object.map('.bss').lookup(0)!, name))
}

/** The libc of this process. */
function libc(): string {
  const line = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find(text => /\/libc\.so\.6$/.test(text))
  return line!.slice(line!.indexOf('/'))
}

function pmu(name: string): string | undefined {
  const missing = !existsSync(`/sys/bus/event_source/devices/${name}`)
  return missing ? `this kernel has no ${name} events` : undefined
}

interface Kind {
  readonly name: string
  readonly attach?: (object: LoadedObject, program: string) => Link
  /** Why it cannot be on this kernel; undefined: it can. */
  readonly missing?: () => string | undefined | Promise<string | undefined>
  /** Other processes are counted too. */
  readonly atLeast?: boolean
}

/** Whether the kernel takes a program of the kind at all. */
async function loads(program: string): Promise<string | undefined> {
  try {
    const object = await load(program)
    object[Symbol.dispose]()
    return undefined
  } catch (error) {
    if (error instanceof BpftokenError && /EPERM|ENOTSUPP|EINVAL|does not have/.test(error.message))
      return `this kernel does not take such a program: ${error.message}`
    throw error
  }
}

function load(program: string): Promise<LoadedObject> {
  const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/trace.bpf.o')), { name: 'trace' })
  return loadObject(spec, { token: null, only: [program] })
}

const KINDS: readonly Kind[] = [
  { name: 'kprobe', missing: () => pmu('kprobe') },
  { name: 'ksyscall', missing: () => pmu('kprobe') },
  {
    name: 'kprobe_multi',
    atLeast: true,
    missing: async () =>
      (await new Features(null).has('kprobe_multi'))
        ? undefined
        : 'this kernel has no kprobe_multi links (CONFIG_FPROBE)',
  },
  { name: 'fentry', atLeast: true, missing: () => loads('on_fentry') },
  { name: 'fexit', atLeast: true, missing: () => loads('on_fexit') },
  { name: 'raw_tp', atLeast: true },
  { name: 'tp_btf', atLeast: true, missing: () => loads('on_tp_btf') },
  {
    name: 'tracepoint',
    atLeast: true,
    missing: () =>
      existsSync('/sys/kernel/tracing/events/syscalls')
        ? undefined
        : 'tracefs is not mounted, or has no system calls',
  },
  {
    name: 'uprobe',
    attach: (object, program) => attachUprobe(object.program(program), { path: libc(), symbol: 'getppid' }),
    missing: () => pmu('uprobe'),
    atLeast: true,
  },
  {
    name: 'uprobe_multi',
    attach: (object, program) =>
      attachUprobeMulti(object.program(program), {
        path: libc(),
        symbols: ['getppid'],
        pid: process.pid,
      }),
    missing: async () =>
      (await new Features(null).has('uprobe_multi'))
        ? undefined
        : 'this kernel has no uprobe_multi links (Linux 6.6)',
  },
]

for (const { name, attach = attachProgram, missing, atLeast } of KINDS) {
  test(
    `a program on ${name} counts while attached, and no more once its link is closed`,
    needsTokens(),
    async t => {
      const why = await missing?.()
      if (why !== undefined) return t.skip(why)
      using object = await load(`on_${name}`)
      call()
      assert.equal(counter(object, `by_${name}`), 0)
      {
        using _link = attach(object, `on_${name}`)
        call()
      }
      const seen = counter(object, `by_${name}`)
      if (atLeast === true) assert.ok(seen >= CALLS, `saw ${seen}`)
      else assert.equal(seen, CALLS)
      // A call that was under way may still be counted.
      const stillCounts = (): boolean => {
        const before = counter(object, `by_${name}`)
        call()
        return counter(object, `by_${name}`) > before
      }
      return eventually(() => !stillCounts(), 'goes on counting')
    },
  )
}

test('an LSM program sees files opened, where the kernel lets it', needsTokens(), async t => {
  const why = await loads('on_lsm')
  if (why !== undefined) return t.skip(why)
  using object = await load('on_lsm')
  {
    using _link = attachProgram(object, 'on_lsm')
    readFileSync('/proc/self/stat')
  }
  return assert.ok(counter(object, 'by_lsm') > 0)
})

test('a function, symbol or tracepoint that does not exist is named', needsTokens(), async () => {
  using object = await load('on_kprobe')
  const program = object.program('on_kprobe')
  assert.throws(() => attachUprobe(program, { path: libc(), symbol: 'no_such' }), {
    code: 'BPFTOKEN_NOT_FOUND',
    message: /no_such/,
  })
  if (pmu('kprobe') === undefined)
    assert.throws(() => attachKprobe(program, { symbol: 'no_such' }), { errnoName: 'ENOENT' })
  else assert.throws(() => attachKprobe(program, { symbol: 'no_such' }), { code: 'BPFTOKEN_NOT_SUPPORTED' })
})
