/** Puts loans and audit records until it is killed, and says each that is on the disk. */
import { Audit } from '../../../src/registry/audit.ts'
import { Registry } from '../../../src/registry/registry.ts'
import { BOOT, loan } from '../../unit/registry/examples.ts'

async function main(directory: string): Promise<void> {
  const registry = await Registry.open(directory, {
    boot: BOOT,
    garbageLines: 40,
    bounds: { endedLoans: 10 },
  })
  const audit = await Audit.open(directory, { maxBytes: 20_000 })
  process.stdout.write('ready\n')
  const client = async (): Promise<void> => {
    for (;;) {
      const id = registry.nextLoanId()
      for (const state of ['making', 'live'] as const) {
        await registry.put({ loan: loan(id, { state }) })
        process.stdout.write(`${id} ${state}\n`)
      }
      const { seq } = await audit.append({ event: 'lend.did', loan: id, facts: {} })
      process.stdout.write(`audit ${seq}\n`)
      if (id % 3 === 0) await registry.put({ loan: loan(id, { state: 'ended' }) })
    }
  }
  await Promise.all([client(), client(), client()])
}

void main(process.argv[2]!)
