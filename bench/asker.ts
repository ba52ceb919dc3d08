/**
 * One user who asks a daemon: `asker.ts SOCKET UID quiet|flood`. Quiet: one hundred times, one
 * after the other; prints the milliseconds of each as JSON. Flood: by 16 connections, without end.
 */
import { Client } from './dist.ts'

const [socket, uid, how] = process.argv.slice(2) as [string, string, 'quiet' | 'flood']
process.setgroups?.([])
process.setgid?.(Number(uid))
process.setuid?.(Number(uid))

async function ask(client: InstanceType<typeof Client>): Promise<void> {
  await client.listLoans({})
}

async function main(): Promise<void> {
  if (how === 'quiet') {
    using client = new Client({ socket })
    const times: number[] = []
    for (let i = 0; i < 110; i++) {
      const begun = performance.now()
      await ask(client)
      times.push(performance.now() - begun)
    }
    console.log(JSON.stringify(times.slice(10)))
    return
  }
  const flood = async (): Promise<void> => {
    using client = new Client({ socket })
    for (;;) await ask(client).catch(() => {})
  }
  setTimeout(() => console.log('flooding'), 500)
  await Promise.all(Array.from({ length: 16 }, flood))
}

void main()
