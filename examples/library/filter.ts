// Written by `bpftoken obj types`. Write it again when the object changes.
import { bindingOf, type ObjectBinding, type TypedEvents } from 'bpftoken/ebpf'

export interface Dropped {
  source: number
  port: number
  bytes: number
}

export const Mode = {
  MODE_COUNT: 0,
  MODE_DROP: 1,
} as const

export type Mode = (typeof Mode)[keyof typeof Mode] | (number & {})

export interface FilterObject {
  maps: {
    drops: TypedEvents<Dropped>
  }
  constants: {
    port: number
    mode: Mode
  }
  variables: {
    packets: bigint
    matched: bigint
    unused_dropped: bigint
  }
  settings: Record<never, never>
  programs: 'filter'
}

export const filter: ObjectBinding<FilterObject> = bindingOf<FilterObject>({
  name: 'filter',
  shape: 'cec11d50284a364183fd10189ae1dd88',
  chars: 'text',
  events: {},
})
