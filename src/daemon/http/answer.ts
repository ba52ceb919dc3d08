/** Writes answers. */
import type { ServerResponse } from 'node:http'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { BpftokenError } from '../../errors.ts'
import { PROBLEM_TYPE, problemOf } from './problem.ts'

export const JSON_TYPE = 'application/json'

/** What is answered is of one asker and one moment. */
const ALWAYS = { 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' } as const

export function answer(res: ServerResponse, status: number, type: string, text: string): void {
  const length = Buffer.byteLength(text)
  res.writeHead(status, { ...ALWAYS, 'Content-Type': type, 'Content-Length': length })
  res.end(text)
}

export function answerJson(res: ServerResponse, status: number, body: unknown): void {
  answer(res, status, JSON_TYPE, JSON.stringify(body))
}

export function answerProblem(res: ServerResponse, error: BpftokenError): number {
  const problem = problemOf(error)
  const { allow } = error.context
  if (problem.status === 405 && allow !== undefined) res.setHeader('Allow', String(allow))
  if (problem.status === 429 || problem.status === 503) res.setHeader('Retry-After', '1')
  answer(res, problem.status, PROBLEM_TYPE, JSON.stringify(problem))
  return problem.status
}

/** Where there is no request to answer to: tells the client of it, and closes. */
export function refuse(socket: Socket, error: BpftokenError): void {
  if (!socket.writable) {
    socket.destroy()
    return
  }
  const problem = problemOf(error)
  const text = JSON.stringify(problem)
  const head = [
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`,
    'Connection: close',
    `Content-Type: ${PROBLEM_TYPE}`,
    `Content-Length: ${Buffer.byteLength(text)}`,
    ...Object.entries(ALWAYS).map(([name, value]) => `${name}: ${value}`),
  ]
  socket.write(`${head.join('\r\n')}\r\n\r\n${text}`)
  socket.destroySoon()
}
