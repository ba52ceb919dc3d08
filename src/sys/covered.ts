/**
 * Mounts to which no path leads, since other mounts cover them. Pure: from the table of one mount
 * namespace.
 */
import type { Place } from './mountinfo.ts'

/**
 * Tells of a mount in `mounts`, which are all that a process has, whether none of its paths leads
 * to it. Takes no longer for many mounts: anybody can bind one a thousand times.
 */
export function coverage(mounts: readonly Place[]): (mount: Place) => boolean {
  const byId = new Map(mounts.map(mount => [mount.mountId, mount]))
  // Of the mounts on one place of their parent the last, as the table has them in the order made.
  const last = new Map<string, number>()
  for (const { mountId, parentId, path } of mounts)
    if (parentId !== mountId) last.set(placeOf(parentId, path), mountId)
  const hidden = new Map<number, boolean>()
  // A process begins its walk in its root, whatever lies on that.
  const isRoot = ({ mountId, parentId }: Place): boolean => parentId === mountId || !byId.has(parentId)

  /** Whether something in the parent, which is no root of a walk, lies above this mount's place. */
  function isHiddenIn(parent: Place, mount: Place): boolean {
    const onRoot = isRoot(parent)
    if (onRoot && mount.path === parent.path) return true
    if (last.get(placeOf(parent.mountId, mount.path)) !== mount.mountId) return true
    return directoriesAbove(mount.path).some(
      directory => !(onRoot && directory === parent.path) && last.has(placeOf(parent.mountId, directory)),
    )
  }

  function isHidden(mount: Place): boolean {
    const way: Place[] = []
    let known = false
    for (let below = mount; ; below = byId.get(below.parentId)!) {
      const before = hidden.get(below.mountId)
      if (before !== undefined || isRoot(below)) {
        known = before ?? false
        break
      }
      hidden.set(below.mountId, false) // Ends the walk in a table that goes in circles.
      way.push(below)
    }
    for (const below of way.reverse()) {
      known ||= isHiddenIn(byId.get(below.parentId)!, below)
      hidden.set(below.mountId, known)
    }
    return known
  }

  return mount => (!isRoot(mount) && last.has(placeOf(mount.mountId, mount.path))) || isHidden(mount)
}

/** A path within a mount, as one word. */
function placeOf(mountId: number, path: string): string {
  return `${mountId} ${path}`
}

/** `/a/b` lies below `/` and `/a`. */
function directoriesAbove(path: string): string[] {
  const names = path.split('/').slice(1, -1)
  return path === '/' ? [] : ['/', ...names.map((_, i) => `/${names.slice(0, i + 1).join('/')}`)]
}
