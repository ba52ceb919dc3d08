/** bpftoken reload: the daemon reads its policies again. */
import { EXIT } from '../../errors.ts'
import { count } from '../daemon/loan-text.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { print, printJson, warn } from '../output.ts'

/** Exit 1: a file has a fault; its policy is as it was. */
export async function reload(options: SocketOptions & { json?: boolean }): Promise<number> {
  using daemon = await daemonAt(options)
  const answer = await daemon.reload()
  if (options.json === true) printJson(answer)
  else {
    print(`${count(answer.loaded, 'policy is', 'policies are')} loaded`)
    for (const { file, message } of answer.faults) warn(`${file} is not as it was loaded: ${message}`)
  }
  return answer.faults.length === 0 ? EXIT.ok : EXIT.failed
}
