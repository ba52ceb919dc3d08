/**
 * A temporary directory for all tests of one file. The file fails in the end if its tests left
 * anything behind: a process, a mount, a map, a program.
 */
import assert from 'node:assert/strict'
import { after } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { Scratch } from './scratch.ts'

/** To be called once by a file, before it makes anything. */
export function tidyScratch(): Scratch {
  const before = snapshot()
  const scratch = new Scratch()
  after(async () => {
    scratch[Symbol.dispose]()
    assert.deepEqual(await residue(before), [])
  })
  return scratch
}
