/**
 * Which mounts no path leads to, since others lie above them. Pure: from the table of one mount
 * namespace.
 */
import type { MountInfo } from './mountinfo.ts'

type Place = Pick<MountInfo, 'mountId' | 'parentId' | 'path'>

/**
 * Tells of a mount in `mounts`, which are all that a process has, whether none of its paths leads
 * to it.
 */
export function coverage(mounts: readonly Place[]): (mount: Place) => boolean {
  const byId = new Map(mounts.map(mount => [mount.mountId, mount]))
  const children = new Map<number, Place[]>()
  for (const mount of mounts) {
    if (mount.parentId === mount.mountId) continue
    const siblings = children.get(mount.parentId)
    if (siblings === undefined) children.set(mount.parentId, [mount])
    else siblings.push(mount)
  }
  const childrenOf = ({ mountId }: Place): Place[] => children.get(mountId) ?? []
  // A process begins its walk in its root, whatever lies on that.
  const isRoot = ({ mountId, parentId }: Place): boolean => parentId === mountId || !byId.has(parentId)

  return mount => {
    if (!isRoot(mount) && childrenOf(mount).some(child => child.path === mount.path)) return true
    const seen = new Set<number>()
    for (let below = mount; !isRoot(below) && !seen.has(below.mountId); ) {
      seen.add(below.mountId)
      const parent = byId.get(below.parentId)!
      const onRoot = isRoot(parent)
      if (onRoot && below.path === parent.path) return true
      const siblings = childrenOf(parent)
      const later = siblings.indexOf(below) + 1
      const hides = (other: Place, i: number): boolean =>
        other !== below &&
        !(onRoot && other.path === parent.path) &&
        (other.path === below.path ? i >= later : isWithin(below.path, other.path))
      if (siblings.some(hides)) return true
      below = parent
    }
    return false
  }
}

/** Whether `path` lies below the directory. */
function isWithin(path: string, directory: string): boolean {
  return path.startsWith(directory === '/' ? '/' : `${directory}/`)
}
