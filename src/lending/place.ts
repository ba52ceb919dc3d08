/**
 * Where a process runs, in people's words: the container, machine or unit that its cgroup is named
 * after. Pure. Whoever makes a cgroup chooses its name, so this is shown and nothing is decided by
 * it.
 */
import { unitOfCgroup } from '../policy/subject.ts'

export type Place =
  | { readonly kind: 'container'; readonly runtime: string; readonly id: string }
  | { readonly kind: 'unit'; readonly name: string }
  | { readonly kind: 'cgroup'; readonly path: string }
  | { readonly kind: 'unknown'; readonly why: string }

/** How each runtime names the cgroups of its containers. */
const CONTAINERS: readonly (readonly [runtime: string, name: RegExp])[] = [
  ['podman', /^libpod-(?:payload-)?([0-9a-f]{64})(?:\.scope)?$/],
  ['docker', /^docker-([0-9a-f]{64})\.scope$/],
  ['crio', /^crio-([0-9a-f]{64})(?:\.scope)?$/],
  ['containerd', /^(?:cri-containerd|nerdctl)-([0-9a-f]{64})\.scope$/],
  ['lxc', /^lxc\.payload\.([\w.-]{1,255})$/],
  ['machine', /^machine-([\w.\\:-]{1,255})\.scope$/],
]
const ID = /^[0-9a-f]{64}$/

/** Of a path in the cgroup v2 hierarchy, from its root. */
export function placeOfCgroup(path: string): Place {
  const names = path.split('/').slice(1)
  for (const [i, name] of names.entries()) {
    // Docker without systemd: /docker/ID.
    if (names[i - 1] === 'docker' && ID.test(name)) return { kind: 'container', runtime: 'docker', id: name }
    for (const [runtime, pattern] of CONTAINERS) {
      const id = pattern.exec(name)?.[1]
      if (id !== undefined) return { kind: 'container', runtime, id }
    }
  }
  const unit = unitOfCgroup(path)
  return unit === undefined ? { kind: 'cgroup', path } : { kind: 'unit', name: unit }
}
