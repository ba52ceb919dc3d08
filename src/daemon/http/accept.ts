/** Which type of answer a client wants. Pure. */
import { parseAccept } from 'hono/utils/accept'
import { RequestError } from '../../errors.ts'

/**
 * Which of the types on offer the client likes best; the first where it does not say. RequestError,
 * 406: it takes none.
 */
export function accepted(accept: string | undefined, offered: readonly string[]): string {
  const wanted = parseAccept(accept ?? '*/*')
  const liked = offered
    .map(type => ({ type, q: quality(type, wanted) }))
    .filter(({ q }) => q > 0)
    .sort((a, b) => b.q - a.q)
  if (liked[0] === undefined) throw new RequestError(406, `the answer is of ${offered.join(' or ')}`)
  return liked[0].type
}

/** What says it most exactly counts. */
function quality(type: string, wanted: ReturnType<typeof parseAccept>): number {
  const patterns = [type, `${type.split('/')[0]}/*`, '*/*']
  for (const pattern of patterns) {
    const found = wanted.find(one => one.type.toLowerCase() === pattern)
    if (found !== undefined) return found.q
  }
  return 0
}
