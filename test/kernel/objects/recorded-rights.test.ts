/**
 * What `record` makes of a load is what `plan` says of the object: each object of the corpus that
 * root loads here is loaded by root and watched. What was recorded of our loader is exactly the plan;
 * of an unmodified bpftool it is the plan and some probes of its libbpf. Either is enough for a
 * workload.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { test } from 'node:test'
import { structOfKernel } from '../../../src/cli/kernel-structs.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { BpftokenError } from '../../../src/errors.ts'
import { type NamedSpec, planRights } from '../../../src/needs/plan.ts'
import type { MaskDomain } from '../../../src/policy/vocabulary.ts'
import { Recorder } from '../../../src/record/recorder.ts'
import { type Recording, recordingOf } from '../../../src/record/recording.ts'
import { Seen } from '../../../src/record/seen.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../corpus/corpus.ts'
import { objectsOf, TOOLS } from '../../corpus/library-tools.ts'
import { CACHE, needsProgram, needsTokens, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { type LoadAnswer, LoadLab } from './load-lab.ts'

const CAPABILITIES = ['bpf', 'net_admin', 'perfmon', 'sys_admin']
const BPFTOOL = join(CACHE, 'host/usr/sbin/bpftool')
/** What libbpf tries first, and the plan leaves out: refused, they change no load. */
const PROBES = ['progs kprobe', 'progs cgroup_sock', 'attachs cgroup_inet_sock_create']

type Loadable = NamedSpec & { readonly hash: string }

const needs = (...more: readonly { skip?: string }[]): { skip?: string } =>
  [needsTokens(), needsCorpus(), ...more].find(({ skip }) => skip !== undefined) ?? {}

/** Loads as root, without a token, in a mount namespace of its own; and is watched. */
class WatchedRoot implements Disposable {
  readonly #stage: Scratch
  readonly #recorder: Recorder
  readonly #child: ChildProcess
  readonly #lines: Interface
  #seen = new Seen()

  private constructor(stage: Scratch, recorder: Recorder, child: ChildProcess) {
    this.#stage = stage
    this.#recorder = recorder
    this.#child = child
    this.#lines = createInterface({ input: child.stdout! })
  }

  static async start(): Promise<WatchedRoot> {
    const stage = new Scratch()
    for (const part of ['dist', 'package.json', 'build/Release/bpftoken.node'])
      cpSync(join(ROOT, part), join(stage.path, part), { recursive: true })
    if (existsSync(BPFTOOL)) cpSync(BPFTOOL, join(stage.path, 'bpftool'))
    const worker = join(stage.path, 'load-worker.cjs')
    cpSync(join(__dirname, 'load-worker.cjs'), worker)
    const recorder = await Recorder.start(call => root.#seen.add(call))
    const script = 'mount -t bpf bpf /sys/fs/bpf && exec "$@"'
    const child = recorder.watchForked(() =>
      spawn('unshare', ['--mount', 'sh', '-c', script, 'sh', process.execPath, worker], {
        stdio: ['pipe', 'pipe', 'inherit'],
      }),
    )
    const root = new WatchedRoot(stage, recorder, child)
    await once(root.#lines, 'line')
    return root
  }

  /** Undefined: it does not load. */
  async load(file: string, bpftool: boolean): Promise<Recording | undefined> {
    this.#recorder.drain()
    this.#seen = new Seen()
    const answered = once(this.#lines, 'line') as Promise<[string]>
    this.#child.stdin!.write(`${JSON.stringify({ file, fresh: true, ...(bpftool ? { bpftool } : {}) })}\n`)
    const { ok } = JSON.parse((await answered)[0]) as LoadAnswer
    this.#recorder.drain()
    const recording = recordingOf(this.#seen.calls, this.#recorder.tally(), this.#seen.dropped)
    assert.equal(recording.complete, true)
    return ok ? recording : undefined
  }

  async end(): Promise<void> {
    this.#child.stdin!.end()
    await once(this.#child, 'close')
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
    this.#lines.close()
    this.#recorder[Symbol.dispose]()
    this.#stage[Symbol.dispose]()
  }
}

/** Labs by what they hold. */
class Labs {
  readonly #labs = new Map<string, LoadLab>()

  async with(capabilities: readonly string[]): Promise<LoadLab> {
    const key = capabilities.join()
    const lab = this.#labs.get(key) ?? (await LoadLab.start(capabilities))
    this.#labs.set(key, lab)
    return lab
  }

  async end(): Promise<void> {
    for (const lab of this.#labs.values()) {
      lab[Symbol.dispose]()
      await lab.ended
    }
  }
}

interface Rights {
  readonly rights: readonly { readonly domain: MaskDomain; readonly word: string }[]
}
const wordsOf = ({ rights }: Rights): string[] => rights.map(({ domain, word }) => `${domain} ${word}`)

/** Loads each as root, and again with just what was recorded. Says what is wrong. */
async function comparedWithPlans(
  objects: readonly Loadable[],
  bpftool: boolean,
): Promise<{ wrong: string[]; counts: Record<'recorded' | Sufficiency, number> }> {
  const wrong: string[] = []
  const counts = { recorded: 0, enough: 0, 'enough with perfmon': 0, 'enough under no loan': 0 }
  const labs = new Labs()
  const root = await WatchedRoot.start()
  try {
    for (const { hash, ...object } of objects) {
      const told = `${object.name} (${hash})`
      const file = corpusFile({ hash })
      const recording = await root.load(file, bpftool)
      // load-agreement.test.ts says what loads here.
      if (recording === undefined) continue
      counts.recorded++
      const plan = planRights([object], {
        loader: bpftool ? 'libbpf' : 'bpftoken',
        kernelStruct: structOfKernel(),
      })
      const [recorded, planned] = [wordsOf(recording), new Set(wordsOf(plan))]
      const allowed = bpftool ? PROBES : []
      for (const word of recorded)
        if (!planned.has(word) && !allowed.includes(word)) wrong.push(`${told}: ${word} is not planned`)
      for (const { domain, word, certain } of plan.rights)
        if (certain && !recorded.includes(`${domain} ${word}`)) wrong.push(`${told}: ${word} is not recorded`)
      const held = plan.capabilities.map(({ name }) => name)
      const names = recording.capabilities.map(({ name }) => name)
      // libbpf's probe with a kprobe program asks for perfmon.
      const forProbes = bpftool && recorded.includes(PROBES[0]!) ? ['perfmon'] : []
      for (const name of names)
        if (!held.includes(name) && !forProbes.includes(name))
          wrong.push(`${told}: capability ${name} is not planned`)
      const outcome = await enough(labs, recording, file, bpftool)
      if (outcome === undefined) wrong.push(`${told}: what was recorded is not enough`)
      else counts[outcome]++
    }
  } finally {
    await root.end()
    root[Symbol.dispose]()
    await labs.end()
  }
  return { wrong, counts }
}

type Sufficiency = 'enough' | 'enough with perfmon' | 'enough under no loan'

/** Under a loan of just this; where that is not all, with the capability that root never asks for. */
async function enough(
  labs: Labs,
  { masks, capabilities }: Recording,
  file: string,
  bpftool: boolean,
): Promise<Sufficiency | undefined> {
  const request = { file, ...(bpftool ? { bpftool } : {}) } as const
  const names = capabilities.map(({ name }) => name)
  if ((await (await labs.with(names)).loadBare(masks, request)).ok) return 'enough'
  const more = [...new Set([...names, 'perfmon'])]
  if ((await (await labs.with(more)).loadBare(masks, request)).ok) return 'enough with perfmon'
  const everything = await (await labs.with(CAPABILITIES)).loadBare(EVERYTHING, request)
  return everything.ok ? undefined : 'enough under no loan'
}

/** Every third object; all with BPFTOKEN_TEST_RECORDINGS=all, which takes a minute. */
const isChosen = (index: number): boolean =>
  process.env['BPFTOKEN_TEST_RECORDINGS'] === 'all' || index % 3 === 0

test('of our loader exactly the plan is recorded, and it is enough', needs(), async t => {
  const objects: Loadable[] = []
  for (const object of corpusObjects().filter((_, index) => isChosen(index)))
    try {
      const spec = parseObject(readFileSync(corpusFile(object)), { name: object.name })
      if (spec.littleEndian) objects.push({ hash: object.hash, name: object.name, spec })
    } catch (error) {
      // What cannot be read is refused by whoever loads it.
      if (!(error instanceof BpftokenError)) throw error
    }
  const { wrong, counts } = await comparedWithPlans(objects, false)
  t.diagnostic(`of ${objects.length} objects: ${JSON.stringify(counts)}`)
  assert.deepEqual(wrong, [])
  assert.ok(counts.enough > counts['enough with perfmon'])
})

test(
  'of bpftool no more than the plan and its probes is recorded, and it is enough',
  needs(needsProgram('host/usr/sbin/bpftool')),
  async t => {
    const { wrong, counts } = await comparedWithPlans(
      TOOLS.flatMap(tool => objectsOf(tool)),
      true,
    )
    t.diagnostic(JSON.stringify(counts))
    assert.deepEqual(wrong, [])
    assert.ok(counts.enough > 0)
  },
)
