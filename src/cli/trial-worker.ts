/**
 * The process that loads an object for `plan`, under whatever is lent to it at that moment, and says
 * how it went. It attaches nothing, and what it loads is gone again with its answer.
 *
 * Lines of JSON, each answered by one: {object, name} in base64, and then {only}.
 */
import { createInterface } from 'node:readline'
import { loadObject } from '../ebpf/load/object.ts'
import { type ObjectSpec, parseObject } from '../ebpf/object/spec.ts'
import type { Right } from '../ebpf/rights.ts'
import { findToken, type Token } from '../ebpf/token.ts'
import { ATTACH_TYPES, CMDS, MAP_TYPES, PROG_TYPES } from '../ebpf/type-names.ts'
import { summarize } from '../ebpf/verifier-log.ts'
import { BpftokenError, VerifierError } from '../errors.ts'
import type { TrialAnswer } from '../needs/trial.ts'
import type { CapabilityName } from '../uapi/constants.ts'

export interface WorkerSubject {
  readonly object: string
  readonly name: string
}

export interface WorkerRequest {
  readonly only?: readonly string[]
}

let spec: ObjectSpec | undefined

async function answer(line: string): Promise<TrialAnswer> {
  const asked = JSON.parse(line) as WorkerSubject | WorkerRequest
  if ('object' in asked) {
    spec = parseObject(Buffer.from(asked.object, 'base64'), { name: asked.name })
    return { ok: true }
  }
  let token: Token | undefined
  try {
    token = findToken({ environment: {} })
    using loaded = await loadObject(spec!, {
      token: token ?? null,
      // What means something to another loader alone asks for no right.
      maps: Object.fromEntries(
        spec!.maps.flatMap(({ name, foreign }) => (foreign === undefined ? [] : [[name, { pin: 'none' }]])),
      ),
      ...(asked.only === undefined ? {} : { only: asked.only }),
    })
    void loaded
    return { ok: true }
  } catch (error) {
    return refusal(error)
  } finally {
    token?.close()
  }
}

/** The same as data. */
function refusal(error: unknown): TrialAnswer {
  if (!(error instanceof BpftokenError)) throw error
  const { program, missing, capabilities, module } = error.context
  if (error instanceof VerifierError) {
    const verifier = summarize(error.log.join('\n')).summary
    return { ok: false, message: error.message, verifier, program: `${program}` }
  }
  return {
    ok: false,
    message: error.hint === undefined ? error.message : `${error.message}. ${error.hint}`,
    ...(missing === undefined ? {} : { missing: wordsOf(missing).map(rightOf) }),
    ...(capabilities === undefined ? {} : { capabilities: wordsOf(capabilities) as CapabilityName[] }),
    ...(module === undefined ? {} : { module: `${module}` }),
  }
}

const wordsOf = (list: string | number | boolean): string[] => `${list}`.split(',')

const NAMES = { cmds: CMDS, maps: MAP_TYPES, progs: PROG_TYPES, attachs: ATTACH_TYPES }

/** `maps hash`. */
function rightOf(text: string): Right {
  const [domain, word] = text.split(' ') as [Right['domain'], string]
  return { domain, word, bit: NAMES[domain].number(word as never) }
}

async function main(): Promise<void> {
  process.stdout.write('ready\n')
  for await (const line of createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await answer(line))}\n`)
}

void main()
