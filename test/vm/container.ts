/**
 * Root of a privileged container: every capability over the machine, and pid and mount namespaces
 * of its own. Does one thing, as its arguments say, and prints `ok` or the errno's name.
 * `inContainer` starts it.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, renameSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs'
import { BpfMap, MAP_FLAGS } from '../../src/ebpf/map.ts'
import { getFdById, linkDetach, objGet } from '../../src/sys/bpf.ts'
import { fsconfigFlag, fsopen } from '../../src/sys/mount.ts'

const ACTIONS = {
  openMap: (id: string) => getFdById('BPF_MAP_GET_FD_BY_ID', Number(id)).close(),
  openPin: (path: string) => objGet(path).close(),
  unlink: (path: string) => unlinkSync(path),
  rmdir: (path: string) => rmdirSync(path),
  rename: (path: string) => renameSync(path, `${path}-elsewhere`),
  mkdir: (path: string) => mkdirSync(path),
  symlink: (path: string) => symlinkSync('/tmp', path),
  chmod: (path: string) => chmodSync(path, 0o777),
  /** Pins a map like the guard's own of that name. */
  plant: (path: string) => {
    using map = BpfMap.create({
      ...{ type: 'hash', name: 'renewals', keyBytes: 8, valueBytes: 8, maxEntries: 8192, token: null },
      flags: MAP_FLAGS.BPF_F_NO_PREALLOC,
    } as const)
    map.pin(path)
  },
  keep: (key: string) => {
    using context = fsopen('bpf')
    fsconfigFlag(context, key)
  },
  detach: (path: string) => {
    using link = objGet(path)
    linkDetach(link)
  },
  /** Makes a pin of its own and removes it. */
  pin: (path: string) => {
    using map = BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null })
    map.pin(path)
    objGet(path).close()
    renameSync(path, `${path}-elsewhere`)
    unlinkSync(`${path}-elsewhere`)
  },
} as const

type Action = keyof typeof ACTIONS

export function inContainer(action: Action, argument: string): string {
  const words = ['--pid', '--fork', '--mount-proc', '--', process.execPath, __filename, action, argument]
  return execFileSync('unshare', words, { encoding: 'utf8' }).trim()
}

function main(action: Action, argument: string): void {
  try {
    ACTIONS[action](argument)
    console.log('ok')
  } catch (error) {
    const { errnoName, code } = error as { errnoName?: string; code?: string }
    console.log(errnoName ?? code ?? String(error))
  }
}

if (require.main === module) main(process.argv[2] as Action, process.argv[3]!)
