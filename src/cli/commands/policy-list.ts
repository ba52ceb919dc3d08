/** bpftoken policy list: the policies that the daemon has, by name. */
import { EXIT } from '../../errors.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { print, printJson, styled, table } from '../output.ts'

const TITLES = ['NAME', 'YOURS', 'APPROVAL', 'RISK', 'FILE', 'DESCRIPTION']

export async function policyList(options: SocketOptions & { json?: boolean }): Promise<number> {
  using daemon = await daemonAt(options)
  const answer = await daemon.listPolicies()
  const rows = answer.policies.map(({ name, allowed, approval, risk, file, description = '' }) => [
    ...[name, allowed ? 'yes' : 'no', approval, risk, file, description],
  ])
  if (options.json === true) printJson(answer)
  else if (rows.length === 0) print('there is no policy that you may have')
  else print(...table([TITLES.map(title => styled('heading', title)), ...rows]))
  return EXIT.ok
}
