/** bpftoken page: what is lent, in a browser on this machine, until it is interrupted. */
import { servePage } from '../../page/host.ts'
import { parseHost, parseListen } from '../../page/listen.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { interruption } from '../interrupted.ts'
import { note, print, printJson } from '../output.ts'
import { resolveUser } from '../user.ts'

interface PageOptions extends SocketOptions {
  listen: string
  host?: string
  operator?: boolean
  json?: boolean
}

/** Ends by a signal, or throws. */
export async function page(options: PageOptions): Promise<never> {
  const { operator = false, json = false } = options
  const listen = parseListen(options.listen)
  const host = options.host === undefined ? undefined : parseHost(options.host)
  using daemon = await daemonAt(options)
  // Whoever cannot be asked is told so before there is a page.
  await daemon.status()
  const signal = interruption()
  return await servePage({ daemon, listen, host, operator, ids: idsOfNobody() }, signal, addresses => {
    if (json) printJson(addresses)
    else {
      print(`to look: ${addresses.viewer}`)
      if (addresses.operator !== undefined) print(`to act:  ${addresses.operator}`)
    }
    note('Each address is good once, for the browser that opens it first. Ctrl-C ends the page.')
  })
}

/** As root: who the process becomes that browsers speak to. Others stay who they are. */
function idsOfNobody(): { uid: number; gid: number } | undefined {
  if (process.geteuid?.() !== 0) return undefined
  const { uid, gid } = resolveUser(undefined, {})
  return { uid, gid }
}
