/**
 * A client of another user: `user-client.ts SOCKET UID flood|ask PID COUNT`. `ask` asks one thing
 * after the other, COUNT rounds; `flood` asks by as many connections as it can get until its
 * standard input ends. It says what came as one line of JSON.
 */
import { Agent, request } from 'node:http'

const [socket = '', uid = '', how = '', pid = '', count = ''] = process.argv.slice(2)
/** More than a user may have. */
const CONNECTIONS = 48

const said = { statuses: {} as Record<string, number>, ms: [] as number[] }

function ask(agent: Agent, method: string, path: string, body?: object): Promise<void> {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const began = performance.now()
  return new Promise(resolve => {
    const done = (status: string): void => {
      said.statuses[status] = (said.statuses[status] ?? 0) + 1
      said.ms.push(performance.now() - began)
      resolve()
    }
    const headers =
      text === undefined ? {} : { 'content-type': 'application/json', 'content-length': text.length }
    const asked = request({ socketPath: socket, method, path, agent, headers }, answer => {
      answer.resume().on('end', () => done(String(answer.statusCode)))
    })
    // An overfull daemon hangs up.
    asked.on('error', () => done('broken')).end(text)
  })
}

const lend = (dryRun: boolean) => ({
  policy: { name: 'everybodys' },
  recipient: { pid: Number(pid) },
  place: { path: '/sys/fs/bpf' },
  ...(dryRun ? { dryRun } : {}),
})

async function main(): Promise<void> {
  process.setgroups!([])
  process.setgid!(Number(uid))
  process.setuid!(Number(uid))
  if (how === 'ask') {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let i = 0; i < Number(count); i++) {
      await ask(agent, 'GET', '/v1/status')
      await ask(agent, 'GET', '/v1/loans')
      await ask(agent, 'POST', '/v1/loans', lend(true))
    }
    agent.destroy()
  } else {
    const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
    let isOver = false
    process.stdin.on('end', () => {
      isOver = true
    })
    process.stdin.resume()
    process.stdout.write('floods\n')
    const flood = async (nth: number): Promise<void> => {
      while (!isOver)
        await (nth % 2 === 0 ? ask(agent, 'GET', '/v1/loans') : ask(agent, 'POST', '/v1/loans', lend(false)))
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, (_, i) => flood(i)))
    agent.destroy()
    said.ms.length = 0
  }
  process.stdout.write(`${JSON.stringify(said)}\n`)
}

void main()
