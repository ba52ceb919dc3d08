/** bpftoken renew: a loan lives for so long from now. */
import { EXIT } from '../../errors.ts'
import { loanOf } from '../daemon/lend.ts'
import { stateText } from '../daemon/loan-text.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { print, printJson } from '../output.ts'
import type { LoanName } from '../tree/options.ts'

interface RenewOptions extends SocketOptions {
  /** In seconds. */
  lifetime: number
  json?: boolean
}

export async function renew(name: LoanName, options: RenewOptions): Promise<number> {
  using daemon = await daemonAt(options)
  const id = await loanOf(daemon, name)
  const loan = await daemon.renew({ params: { id }, body: { lifetimeSec: options.lifetime } })
  if (options.json === true) printJson(loan)
  else print(`${id}: ${stateText(loan)}`)
  return EXIT.ok
}
