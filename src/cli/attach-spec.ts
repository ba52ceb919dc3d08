/** The option --attach: what a program is attached to. */
import type { AttachSpec } from '../ebpf/attach/section.ts'
import { UsageError } from '../errors.ts'

const ATTACH_FORMS =
  'xdp:DEVICE[/skb|driver|hardware], tcx:DEVICE/ingress|egress, netkit:DEVICE/primary|peer, cgroup:PATH, netns:PATH'

/**
 * Reads `xdp:eth0`, `xdp:eth0/skb`, `tcx:eth0/egress`, `netkit:nk0/peer`, `cgroup:PATH` or
 * `netns:PATH`. The name of a device has no slash. UsageError: the text is none of these.
 */
export function parseAttachSpec(text: string): AttachSpec {
  const [, kind, rest = ''] = /^(\w+):(.+)$/s.exec(text) ?? []
  const [device = '', option, ...surplus] = rest.split('/')
  const isDevice = device !== '' && surplus.length === 0
  if (
    kind === 'xdp' &&
    isDevice &&
    (option === undefined || option === 'skb' || option === 'driver' || option === 'hardware')
  )
    return { kind, device, ...(option === undefined ? {} : { mode: option }) }
  if (kind === 'tcx' && isDevice && (option === 'ingress' || option === 'egress'))
    return { kind, device, direction: option }
  if (kind === 'netkit' && isDevice && (option === 'primary' || option === 'peer'))
    return { kind, device, end: option }
  if (kind === 'cgroup' || kind === 'netns') return { kind, path: rest }
  throw new UsageError(`"${text}" does not say what to attach to`, {
    context: { attach: text },
    hint: `Give ${ATTACH_FORMS}, or auto`,
  })
}

/** As `parseAttachSpec` reads it. */
export function specText(spec: AttachSpec): string {
  switch (spec.kind) {
    case 'xdp':
      return `xdp:${spec.device}${spec.mode === undefined ? '' : `/${spec.mode}`}`
    case 'tcx':
      return `tcx:${spec.device}/${spec.direction}`
    case 'netkit':
      return `netkit:${spec.device}/${spec.end}`
    default:
      return `${spec.kind}:${spec.path}`
  }
}
