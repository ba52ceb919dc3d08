/** /proc/PID/mountinfo as data. Pure. Source: Documentation/filesystems/proc.rst, section 3.5. */

export interface MountInfo {
  mountId: number
  parentId: number
  /** `major:minor` of the superblock: two mounts with the same one share an instance. */
  device: string
  /** What part of the file system is mounted; `/` for all of it. */
  root: string
  path: string
  options: string[]
  fsType: string
  source: string
  /** Options of the superblock, where bpffs shows what it delegates. */
  superOptions: string[]
}

/** Space, tab, newline and backslash stand as three octal digits. */
function decodeOctal(text: string): string {
  if (!text.includes('\\')) return text
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/** One line; undefined where it is not a mountinfo line. */
export function parseMountInfoLine(line: string): MountInfo | undefined {
  const [head, tail] = line.split(' - ')
  if (head === undefined || tail === undefined) return undefined
  const h = head.split(' ')
  const t = tail.split(' ')
  if (h.length < 6 || t.length < 3) return undefined
  return {
    mountId: Number(h[0]),
    parentId: Number(h[1]),
    device: h[2]!,
    root: decodeOctal(h[3]!),
    path: decodeOctal(h[4]!),
    options: h[5]!.split(','),
    fsType: t[0]!,
    source: decodeOctal(t[1]!),
    superOptions: t[2]!.split(','),
  }
}

/**
 * All mounts; with `fsType`, only those of that type (much cheaper on a machine with many mounts).
 */
export function parseMountInfo(text: string, fsType?: string): MountInfo[] {
  const mounts: MountInfo[] = []
  for (const line of text.split('\n')) {
    if (fsType !== undefined && !line.includes(` - ${fsType} `)) continue
    const mount = parseMountInfoLine(line)
    if (mount !== undefined && (fsType === undefined || mount.fsType === fsType)) mounts.push(mount)
  }
  return mounts
}

/** Where a mount lies. */
export type Place = Pick<MountInfo, 'mountId' | 'parentId' | 'path'>

/**
 * Of all mounts only where they lie: a small part of the work, where there are many. Names may have
 * whatever else a regular expression takes for the end of a line or for a blank.
 */
export function parsePlaces(text: string): Place[] {
  return [...text.matchAll(/(?:^|\n)(\d+) (\d+) [^ \n]+ [^ \n]+ ([^ \n]+) /g)].map(
    ([, mountId, parentId, path]) => ({
      mountId: Number(mountId),
      parentId: Number(parentId),
      path: decodeOctal(path!),
    }),
  )
}
