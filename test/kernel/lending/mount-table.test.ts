/** MountTable: whose a held file is, is read after it is held, since numbers of mounts are used again. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { answers, fileSystemOf } from '../../../src/lending/causes/answering.ts'
import { MountTable } from '../../../src/lending/causes/mount-table.ts'
import { open } from '../../../src/sys/open.ts'
import { openProcess } from '../../../src/sys/process.ts'
import { O_CLOEXEC, O_PATH } from '../../../src/uapi/constants.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { tidyScratch } from '../../helpers/tidy-scratch.ts'

const scratch = tidyScratch()

/** A tmpfs; then, at the same place and as a rule by the same number, an overlay, which others may serve. */
const SCRIPT = `
  mount -t tmpfs none "$0" && mkdir "$0/place" "$0/low" "$0/lower" && mount -t tmpfs none "$0/place" && echo 1
  read line; umount "$0/place" && mount -t overlay none -o "lowerdir=$0/low:$0/lower" "$0/place" && echo 2
  read line`

test('a table that was read before says nothing of what was mounted since', needsTokens(), async () => {
  const command = ['--mount', '--propagation', 'private', 'sh', '-c', SCRIPT, scratch.path]
  const child = spawn('unshare', command, { stdio: ['pipe', 'pipe', 'inherit'] })
  try {
    let said = ''
    child.stdout.on('data', chunk => {
      said += String(chunk)
    })
    await eventually(() => said.includes('1') || child.exitCode !== null, 'it never mounted the first')
    using target = openProcess(child.pid!)
    const table = new MountTable(target)
    const place = `/proc/${child.pid}/root${scratch.path}/place`
    const look = (): [string | undefined, boolean] => {
      using file = open(place, O_PATH | O_CLOEXEC)
      return [fileSystemOf(file, table), answers(file, table)]
    }
    assert.deepEqual(look(), ['tmpfs', true])
    child.stdin.write('\n')
    await eventually(() => said.includes('2') || child.exitCode !== null, 'it never mounted the second')
    assert.deepEqual(look(), ['overlay', false])
  } finally {
    child.stdin.end('\n')
    await eventually(() => child.exitCode !== null || child.signalCode !== null, 'it never ended')
  }
})
