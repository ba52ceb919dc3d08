/** Cgroups that a test made, and their end. */
import { readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from './eventually.ts'

/** Whether a process is left in it, or below. */
export function isPopulated(path: string): boolean {
  return readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 1')
}

/** Removes it with all below it, once the kernel has seen that their last process is gone. */
export async function removeCgroup(path: string): Promise<void> {
  await eventually(() => !isPopulated(path), `processes are left in ${path}`)
  removeTree(path)
}

/** The same, after the end of all that is in it. */
export async function endCgroup(path: string): Promise<void> {
  writeFileSync(join(path, 'cgroup.kill'), '1')
  await removeCgroup(path)
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(path, entry.name))
  rmdirSync(path)
}
