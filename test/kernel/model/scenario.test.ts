/**
 * The scenarios of examples/scenarios, on paper and on the kernel: each comes out as it expects, and
 * what the kernel has to do with it is what the kernel does. Without a guard: what only the guard
 * refuses is tried by the tests that docs/requirements.md names.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { type ParsedScenario, parseScenario } from '../../../src/model/scenario/parse.ts'
import { playScenario } from '../../../src/model/scenario/play.ts'
import type { ScenarioStep } from '../../../src/model/scenario/schema.ts'
import { MODEL_CAPABILITIES } from '../../../src/model/task.ts'
import {
  bpf_attr_btf_load,
  bpf_attr_map_create,
  bpf_attr_prog_load,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { CAPABILITIES } from '../../../src/uapi/constants.ts'
import { Batch, Executor, type Step } from './executor.ts'
import { ALL_CAPABILITIES } from './lab.ts'
import { outcomeOf } from './outcome.ts'

const FOLDER = join(__dirname, '../../../examples/scenarios')
const FILES = readdirSync(FOLDER).filter(name => name.endsWith('.yaml'))
const { BPF_F_TOKEN_FD } = bpf_map_flags
const kernel = runningKernel()

/** What is played here; the rest is of mounts that move, of other processes, or of the guard alone. */
const TRIED = ['fsopen', 'set', 'create', 'fsmount', 'token', 'map', 'prog', 'btf']

function read(name: string): ParsedScenario {
  return parseScenario(name, readFileSync(join(FOLDER, name), 'utf8'))
}

/** The same story for a kernel without the guard and other security modules. */
function bare(parsed: ParsedScenario): ParsedScenario {
  const { guard: _, ...spec } = parsed.document.spec
  // What was bound or moved has no place here, and neither has what is made of it.
  const made = new Set(spec.story.flatMap(step => (step.do === 'fsmount' ? [step.mount] : [])))
  const tokens = new Set(
    spec.story.flatMap(step => (step.do === 'token' && made.has(step.mount) ? [step.token] : [])),
  )
  const isTried = (step: ScenarioStep): boolean =>
    TRIED.includes(step.do) &&
    step.lsm === undefined &&
    (step.do !== 'token' || made.has(step.mount)) &&
    (step.token === undefined || tokens.has(step.token))
  const story = spec.story.filter(isTried)
  // Nobody confines without the guard.
  const tasks = Object.fromEntries(
    Object.entries(spec.tasks).map(([name, { confined: _, ...task }]) => [name, task]),
  )
  return {
    ...parsed,
    document: {
      ...parsed.document,
      spec: { ...spec, tasks, kernel: 'running', story, unprivilegedBpfDisabled: sysctl() },
    },
  }
}

function sysctl(): 0 | 1 | 2 {
  return Number(readFileSync('/proc/sys/kernel/unprivileged_bpf_disabled', 'utf8')) as 0 | 1 | 2
}

/** Plays a story with processes of its own. */
class Enactment {
  readonly #executor = new Executor()
  readonly #contexts = new Map<string, number>()
  readonly #capabilities = new Map<string, bigint>()
  readonly #registers = new Map<string, number>()
  readonly #insns: bigint
  readonly #license: bigint
  readonly #btf: { address: bigint; size: number }

  constructor() {
    const { address } = { address: (bytes: Uint8Array) => this.#executor.address(this.#executor.data(bytes)) }
    this.#insns = address(new Uint8Array([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
    this.#license = this.#executor.address(this.#executor.text('GPL'))
    const strings = Buffer.from('\0int\0')
    const words = new Uint32Array([0x0001_eb9f, 24, 0, 16, 16, strings.length, 1, 1 << 24, 4, (1 << 24) | 32])
    const btf = Buffer.concat([Buffer.from(words.buffer), strings])
    this.#btf = { address: address(btf), size: btf.length }
  }

  close(): Promise<void> {
    return this.#executor.close()
  }

  async run(step: Step): Promise<string> {
    const batch = new Batch()
    batch.add(step)
    const [result] = await this.#executor.run(batch)
    return outcomeOf(result!)
  }

  /** A process for each task; all user namespaces are right below the initial one. */
  async prepare({ document }: ParsedScenario): Promise<void> {
    const first = new Map<string, number>()
    let next = 1
    for (const [name, task] of Object.entries(document.spec.tasks)) {
      const inside = task.userNamespace !== 'init'
      const from = first.get(task.userNamespace)
      const spawn: Partial<Step> =
        inside && from === undefined
          ? {
              context: 0,
              ownUserNamespace: true,
              b: this.#executor.text(`0 ${task.uid} 65536\n`),
            }
          : { context: from ?? 0 }
      const all: Step = { context: 0, op: 'spawn', capabilities: ALL_CAPABILITIES, a: next, ...spawn }
      assert.equal(await this.run(all), 'ok')
      if (inside && from === undefined) first.set(task.userNamespace, next)
      this.#contexts.set(name, next++)
      const words: readonly string[] = task.capabilities === 'all' ? MODEL_CAPABILITIES : task.capabilities
      this.#capabilities.set(
        name,
        words.reduce<bigint>(
          (mask, word) => mask | (1n << BigInt(CAPABILITIES[`CAP_${word.toUpperCase()}` as 'CAP_BPF'])),
          0n,
        ),
      )
    }
  }

  #register(kind: string, name: string): number {
    const key = `${kind} ${name}`
    const known = this.#registers.get(key) ?? this.#registers.size
    this.#registers.set(key, known)
    return known
  }

  async play(step: ScenarioStep): Promise<string> {
    const who = { context: this.#contexts.get(step.as!)!, capabilities: this.#capabilities.get(step.as!)! }
    const executor = this.#executor
    switch (step.do) {
      case 'fsopen':
        return this.run({
          ...who,
          op: 'fsopen',
          out: this.#register('context', step.context!),
          givesFd: true,
        })
      case 'set': {
        const context = this.#register('context', step.context!)
        const a = executor.text(step.key!)
        if (step.value === undefined) return this.run({ ...who, op: 'fsconfigFlag', in: context, a })
        return this.run({ ...who, op: 'fsconfigString', in: context, a, b: executor.text(step.value) })
      }
      case 'create':
        return this.run({ ...who, op: 'fsconfigCreate', in: this.#register('context', step.context!) })
      case 'fsmount': {
        const out = this.#register('mounted', step.mount!)
        const context = this.#register('context', step.context!)
        const said = await this.run({ ...who, op: 'fsmount', in: context, out, givesFd: true })
        if (said !== 'ok') return said
        const root = this.#register('root', step.mount!)
        const a = executor.text('.')
        return this.run({ ...who, op: 'openat', in: out, a, b: 0o200000, out: root, givesFd: true })
      }
      default:
        return this.#bpf(step, who)
    }
  }

  #bpf(step: ScenarioStep, who: { context: number; capabilities: bigint }): Promise<string> {
    const { maps, progs, attachs } = kernel.vocabulary
    const flag = step.token === undefined ? 0 : BPF_F_TOKEN_FD
    const token = step.token === undefined ? undefined : this.#register('token', step.token)
    const call = (cmd: number, attr: Uint8Array, offset: number): Promise<string> =>
      this.run({
        ...who,
        op: 'bpf',
        cmd,
        attr,
        size: attr.length,
        givesFd: true,
        ...(token === undefined ? {} : { patches: [[token, offset]] as const }),
      })
    switch (step.do) {
      case 'token': {
        const attr = bpf_attr_token_create.encode({})
        const out = this.#register('token', step.token!)
        const root = this.#register('root', step.mount!)
        const { off } = bpf_attr_token_create.fields.bpffs_fd
        const { BPF_TOKEN_CREATE: cmd } = bpf_cmd
        return this.run({ ...who, op: 'bpf', cmd, attr, size: 8, patches: [[root, off]], out, givesFd: true })
      }
      case 'map': {
        const ring = step.type === 'ringbuf'
        const attr = bpf_attr_map_create.encode(
          {
            map_type: maps.bitOfName.get(step.type!)!,
            key_size: ring ? 0 : 4,
            value_size: ring ? 0 : 4,
            max_entries: ring ? 4096 : 1,
            map_flags: flag,
          },
          kernel.attrEnds.map_create,
        )
        return call(bpf_cmd.BPF_MAP_CREATE, attr, bpf_attr_map_create.fields.map_token_fd.off)
      }
      case 'prog': {
        const attr = bpf_attr_prog_load.encode(
          {
            prog_type: progs.bitOfName.get(step.type!)!,
            expected_attach_type: step.attach === undefined ? 0 : attachs.bitOfName.get(step.attach)!,
            insns: this.#insns,
            insn_cnt: 2,
            license: this.#license,
            prog_flags: flag,
          },
          kernel.attrEnds.prog_load,
        )
        return call(bpf_cmd.BPF_PROG_LOAD, attr, bpf_attr_prog_load.fields.prog_token_fd.off)
      }
      default: {
        const attr = bpf_attr_btf_load.encode(
          { btf: this.#btf.address, btf_size: this.#btf.size, btf_flags: flag },
          kernel.attrEnds.btf_load,
        )
        return call(bpf_cmd.BPF_BTF_LOAD, attr, bpf_attr_btf_load.fields.btf_token_fd.off)
      }
    }
  }
}

test('there is a scenario for each of the 14 requirements', () => {
  const numbers = FILES.map(name => Number(/^[abc](\d+)-/.exec(name)?.[1])).sort((a, b) => a - b)
  assert.deepEqual(
    numbers,
    Array.from({ length: 14 }, (_, i) => i + 1),
  )
})

describe('scenarios', () => {
  for (const name of FILES) {
    test(`${name} comes out as it expects`, () => {
      const unmet = playScenario(read(name)).filter(({ met }) => met === false)
      assert.deepEqual(
        unmet.map(({ line, outcome, why }) => ({ line, outcome, why })),
        [],
      )
    })

    test(`${name} on the kernel, without the guard`, {
      skip: kernel.hasTokens ? false : 'no tokens',
    }, async t => {
      const parsed = bare(read(name))
      const predicted = playScenario(parsed, () => kernel)
      const enactment = new Enactment()
      try {
        await enactment.prepare(parsed)
        let compared = 0
        for (const { step, line, outcome } of predicted) {
          assert.equal(await enactment.play(step), outcome, `line ${line}: ${JSON.stringify(step)}`)
          compared++
        }
        const all = read(name).document.spec.story.length
        t.diagnostic(`${compared} of ${all} steps were done on the kernel`)
        assert.ok(compared > 2)
      } finally {
        await enactment.close()
      }
    })
  }
})

test('a scenario that expects something else is told so', () => {
  const text = readFileSync(join(FOLDER, 'a2-token-create.yaml'), 'utf8')
  const wrong = text.replace('token: t, expect: EPERM, because: allows the command', 'token: t, expect: ok')
  assert.notEqual(wrong, text)
  const unmet = playScenario(parseScenario('wrong', wrong)).filter(({ met }) => met === false)
  assert.equal(unmet.length, 1)
  assert.equal(unmet[0]!.outcome, 'EPERM')
})
