/**
 * What the daemon's records cost, beside a plain write and fdatasync of as many bytes in the same
 * run:
 *
 *   tsx bench/registry.ts [DIRECTORY]
 *
 * Memory needs node --expose-gc, and is left out without.
 */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Audit } from '../src/registry/audit.ts'
import { policyDigest } from '../src/registry/loan-record.ts'
import { Registry } from '../src/registry/registry.ts'
import { answer, BOOT, loan, policyJson } from '../test/unit/registry/examples.ts'

const COUNT = 2000

async function perSecond(count: number, act: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await act()
  return count / ((performance.now() - start) / 1000)
}

/** `clients` that each wait for their own. */
function clients(many: number, count: number, act: (i: number) => Promise<unknown>): Promise<unknown> {
  let next = 0
  return Promise.all(
    Array.from({ length: many }, async () => {
      while (next < count) await act(next++)
    }),
  )
}

async function plain(path: string, bytes: Buffer): Promise<number> {
  const file = openSync(path, 'w')
  try {
    return await perSecond(COUNT, async () => {
      for (let i = 0; i < COUNT; i++) {
        writeSync(file, bytes)
        fdatasyncSync(file)
      }
    })
  } finally {
    closeSync(file)
  }
}

const policy = policyJson('dev')
const terms = { policy, policyDigest: policyDigest(policy) }

async function main(parent: string): Promise<void> {
  const scratch = await mkdtemp(join(parent, 'bpftoken-bench-'))
  try {
    const record = Buffer.alloc(JSON.stringify(loan(1)).length - JSON.stringify(policy).length, 0x61)
    const show = (what: string, rate: number, floor: number): void =>
      console.log(`${what.padEnd(44)}${rate.toFixed(0).padStart(8)} /s  ${(rate / floor).toFixed(2)}x`)
    for (let round = 0; round < 3; round++) {
      const floor = await plain(join(scratch, 'plain'), record)
      show(`write + fdatasync of ${record.length} bytes, one by one`, floor, floor)
      for (const many of [1, 8, 64]) {
        const registry = await Registry.open(join(scratch, `registry-${round}-${many}`), { boot: BOOT })
        const put = (i: number): Promise<void> => registry.put({ loan: loan(i + 1, terms) })
        show(`registry, ${many} at once`, await perSecond(COUNT, () => clients(many, COUNT, put)), floor)
        const audit = await Audit.open(registry.directory)
        const append = (i: number): Promise<unknown> =>
          audit.append({ event: 'lend.did', loan: i + 1, facts: { i } })
        show(`audit, ${many} at once`, await perSecond(COUNT, () => clients(many, COUNT, append)), floor)
        await audit.close()
        await registry.close()
      }
    }
    await restart(join(scratch, 'restart'))
    await memory(join(scratch, 'memory'))
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

async function restart(directory: string): Promise<void> {
  const first = await Registry.open(directory, { boot: BOOT })
  const all = Array.from({ length: 11_000 }, (_, i) =>
    loan(i + 1, { ...terms, state: i < 10_000 ? 'ended' : 'live' }),
  )
  await Promise.all(all.map(one => first.put({ loan: one })))
  await first.close()
  const start = performance.now()
  const registry = await Registry.open(directory, { boot: BOOT })
  console.log(`read back 1,000 live and 10,000 ended loans: ${(performance.now() - start).toFixed(0)} ms`)
  let longest = 0
  let last = performance.now()
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last)
    last = performance.now()
  }, 1)
  const begin = performance.now()
  await registry.compact()
  clearInterval(timer)
  console.log(
    `written anew: ${(performance.now() - begin).toFixed(0)} ms, the event loop was held up for ${longest.toFixed(0)} ms at most`,
  )
  await registry.close()
}

async function memory(directory: string): Promise<void> {
  if (global.gc === undefined) return
  const used = (): number => {
    global.gc!()
    return process.memoryUsage().heapUsed
  }
  const registry = await Registry.open(directory, { boot: BOOT })
  const before = used()
  const count = 5000
  for (let i = 0; i < count; i += 100)
    await Promise.all(
      Array.from({ length: 100 }, (_, j) => {
        const id = i + j + 1
        const text = (what: string): string =>
          JSON.parse(JSON.stringify(`/${what}/of/user-${id}/${'x'.repeat(60)}`))
        return registry.put({
          answer: answer(1000 + (id % 50), `key-${id}`, { loan: id }),
          loan: {
            ...JSON.parse(JSON.stringify(loan(id, { state: 'live', ...terms }))),
            trace: text('trace').repeat(6),
            comment: text('comment'),
            recipient: {
              pid: id,
              userNamespace: `user:[${4026532000 + id}]`,
              mountNamespace: `mnt:[${4026532000 + id}]`,
              ownerUid: 1000,
              cgroup: text('cgroup'),
              unit: text('unit'),
            },
            made: {
              at: new Date(id).toISOString(),
              mountId: id,
              device: `0:${id}`,
              path: text('bpf'),
              masks: { cmds: '0x21', maps: '0x6', progs: '0x2', attachs: '0x1' },
              options: [text('delegate_cmds'), text('delegate_maps'), text('progs'), text('attachs')],
              delegation: id,
            },
            expires: { at: new Date(id).toISOString(), bootNs: `${1e15 + id}` },
          },
        })
      }),
    )
  console.log(`memory: ${((used() - before) / count).toFixed(0)} bytes for a live loan and its answer`)
  await registry.close()
}

void main(process.argv[2] ?? tmpdir())
