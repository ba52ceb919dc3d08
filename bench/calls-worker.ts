/** Runs inside a user namespace with a delegation at /sys/fs/bpf: see calls.ts. */
import { once } from 'node:events'
import { CProgram } from './c-program.ts'
import { maps, tokens } from './dist.ts'
import { type Comparison, compare, interleave } from './stats.ts'

const PATH = '/sys/fs/bpf'
const KEYS = 1024
const ELEMENT_CALLS = 20_000
const TOKEN_CALLS = 500

async function measure(roundCount: number): Promise<Comparison[]> {
  using token = tokens.Token.create(PATH)
  const spec = { type: 'hash', keyBytes: 4, valueBytes: 8, maxEntries: KEYS, token } as const
  using map = maps.BpfMap.create(spec)
  using program = new CProgram('calls', ['3', PATH], [map.fd.number])
  const key = new Uint8Array(4)
  const keyView = new DataView(key.buffer)
  const value = new Uint8Array(8)
  const valueView = new DataView(value.buffer)

  function update(count: number): void {
    for (let i = 0; i < count; i++) {
      keyView.setUint32(0, i % KEYS, true)
      valueView.setUint32(0, i, true)
      map.update(key, value)
    }
  }
  function lookup(count: number): void {
    for (let i = 0; i < count; i++) {
      keyView.setUint32(0, i % KEYS, true)
      if (map.lookup(key, value) === undefined) throw new Error('an element is missing')
    }
  }
  function createToken(count: number): void {
    for (let i = 0; i < count; i++) tokens.Token.create(PATH).close()
  }

  async function measureOne(name: string, question: string, call: (count: number) => void, count: number) {
    const ours = async (): Promise<number> => {
      const start = performance.now()
      call(count)
      return ((performance.now() - start) * 1e6) / count
    }
    const c = async (): Promise<number> => Number(await program.ask(`${question} ${count}`)) / count
    await ours() // warm up
    await c()
    const rounds = await interleave(roundCount, ours, c)
    return compare(
      name,
      'ns',
      rounds.map(round => ({ ours: [round.ours], c: [round.c] })),
    )
  }
  return [
    await measureOne('map update', 'update', update, ELEMENT_CALLS),
    await measureOne('map lookup', 'lookup', lookup, ELEMENT_CALLS),
    await measureOne('token: open, create, close', 'token', createToken, TOKEN_CALLS),
  ]
}

async function main(): Promise<void> {
  const asked = once(process, 'message')
  process.send!('ready')
  const [roundCount] = await asked
  process.send!(await measure(roundCount))
  process.disconnect()
}

void main()
