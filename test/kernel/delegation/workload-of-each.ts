/** A workload for each test of a file, in namespaces of its own, that is asked and lent to. */
import { afterEach, beforeEach } from 'node:test'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import { Shell } from '../../helpers/shell.ts'

/** To be called once by a file: what is in it is that of the test that runs. */
export function workloadOfEach(): { readonly shell: Shell; readonly target: Target } {
  let shell: Shell
  let target: Target
  beforeEach(async () => {
    shell = await Shell.start()
    target = openTarget(shell.pid)
  })
  afterEach(async () => {
    target[Symbol.dispose]()
    await shell.end()
  })
  return {
    get shell() {
      return shell
    },
    get target() {
      return target
    },
  }
}
