/** Which endpoint a request means, by path and method. */
import { TrieRouter } from 'hono/router/trie-router'
import type { Method } from '../../api/routes.ts'
import { RequestError } from '../../errors.ts'
import { decode } from './percent.ts'

export interface Match<Endpoint> {
  readonly endpoint: Endpoint
  /** Decoded; each is one segment of the path. */
  readonly params: Readonly<Record<string, string>>
}

/** By path, then by method. `E` is what answers. */
export class Table<E> {
  readonly #router = new TrieRouter<Map<Method, E>>()
  readonly #byPath = new Map<string, Map<Method, E>>()

  /** `path` has `{name}` for what differs. */
  add(method: Method, path: string, endpoint: E): void {
    const methods = this.#byPath.get(path) ?? new Map<Method, E>()
    if (!this.#byPath.has(path)) {
      this.#byPath.set(path, methods)
      this.#router.add(ANY, path.replace(/\{(\w+)\}/g, ':$1'), methods)
    }
    methods.set(method, endpoint)
  }

  /**
   * RequestError, 404: there is no such path; 405: not by that method, and its context `allow` says
   * by which.
   */
  match(method: string, path: string): Match<E> {
    const [found] = this.#router.match(ANY, path)[0] as [[Map<Method, E>, Record<string, string>]?]
    if (found === undefined)
      throw new RequestError(404, 'there is no such path', { hint: 'GET /openapi.json lists all' })
    const [methods, raw] = found
    const endpoint = methods.get(method as Method)
    if (endpoint === undefined) {
      const allow = [...methods.keys()].join(', ')
      throw new RequestError(405, `this path takes ${allow}`, { context: { allow } })
    }
    return {
      endpoint,
      params: Object.fromEntries(Object.entries(raw).map(([name, value]) => [name, decode(value)])),
    }
  }
}

const ANY = 'ALL'
