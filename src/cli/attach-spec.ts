/** The option --attach: what a program is attached to. */
import type { AttachSpec } from '../ebpf/attach/section.ts'
import { UsageError } from '../errors.ts'

const ATTACH_FORMS = 'xdp:DEVICE[/skb|driver|hardware], tcx:DEVICE/ingress|egress, cgroup:PATH, netns:PATH'

/**
 * Reads `xdp:eth0`, `xdp:eth0/skb`, `tcx:eth0/egress`, `cgroup:PATH`, `netns:PATH`. UsageError:
 * none of these.
 */
export function parseAttachSpec(text: string): AttachSpec {
  const [, kind, rest = ''] = /^(\w+):(.+)$/.exec(text) ?? []
  const [device = '', option] = rest.split('/')
  if (
    kind === 'xdp' &&
    (option === undefined || option === 'skb' || option === 'driver' || option === 'hardware')
  )
    return { kind, device, ...(option === undefined ? {} : { mode: option }) }
  if (kind === 'tcx' && (option === 'ingress' || option === 'egress'))
    return { kind, device, direction: option }
  if (kind === 'cgroup' || kind === 'netns') return { kind, path: rest }
  throw new UsageError(`"${text}" does not say what to attach to`, {
    context: { attach: text },
    hint: `Give ${ATTACH_FORMS}, or auto`,
  })
}
