/** The smallest change by which the guard would allow what it refused, in the words of commands. Pure. */
import type { EventExplanation } from '../lending/explain-event.ts'
import { editText } from './edit-text.ts'

export function eventChangeText(
  { reason }: { readonly reason: string },
  { edit, caution }: Pick<EventExplanation, 'edit' | 'caution'>,
): string {
  const text = edit === undefined ? (CHANGES[reason] ?? caution ?? 'none') : editText(edit)
  return edit === undefined || caution === undefined ? text : `${text}; ${caution}`
}

const CHANGES: Readonly<Record<string, string>> = {
  none: 'none',
  'no-delegator': 'lend with bpftoken, or let the program do so: bpftoken guard allow --exe FILE',
  'not-marked': 'lend with bpftoken, or let the program do so without marks: bpftoken guard allow --implicit',
  'no-ability': 'make the policy known: bpftoken policy install FILE',
  unregistered: 'lend anew, now that the guard is there: bpftoken delegate',
  revoked: 'lend anew: bpftoken delegate',
  expired:
    'lend anew (bpftoken delegate), for longer if need be: spec.limits.lifetime; before the end, bpftoken renew',
  'map-bytes': 'raise spec.limits.mapBytes, by how much the map asks for, which the event does not hold',
  instructions: 'raise spec.limits.instructions to the length of the program: bpftoken obj show',
  digest: 'add the digest of the program to spec.programs.digests',
  function: 'add the attach target of the program to spec.targets.functions',
  full: 'end what has most of it: bpftoken revoke',
  'old-mount': 'mount with fsopen(2), as mount(8) of util-linux 2.39 and newer and bpftoken do',
  elsewhere: 'use the bpffs where it was lent',
  lists: 'name one of these abilities alone',
  'beyond-parent': 'lend more to the delegation that it is derived from, or ask for less',
  reopened: 'pass the descriptor instead: opening a token by /proc crashes kernels up to 7.3',
}
