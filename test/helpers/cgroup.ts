/** Removes cgroups that a test made. */
import { readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { eventually } from './eventually.ts'

/** Whether a process is in the cgroup or in one below it. */
export function isPopulated(path: string): boolean {
  return readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 1')
}

/** Removes the cgroup and those below it, once the kernel knows that no process is in them. */
export async function removeCgroup(path: string): Promise<void> {
  await eventually(() => !isPopulated(path), `processes are left in ${path}`)
  removeTree(path)
}

/** Kills every process in the cgroup, then removes it as `removeCgroup` does. */
export async function endCgroup(path: string): Promise<void> {
  writeFileSync(join(path, 'cgroup.kill'), '1')
  await removeCgroup(path)
}

function removeTree(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeTree(join(path, entry.name))
  rmdirSync(path)
}
