/** The map that says where `gotox` of one program may lead. Since Linux 6.19. */
import { NotSupportedError, SyscallError } from '../../errors.ts'
import { BpfMap } from '../map.ts'
import type { Token } from '../token.ts'
import type { LinkedJumpTable } from './linker.ts'

/** struct bpf_insn_array_value: orig_off, xlated_off, jitted_off, and 4 bytes of nothing. */
const VALUE_BYTES = 16

/**
 * Makes it, with its contents, frozen: an array of instructions of type `insn_array`.
 * NotSupportedError: this kernel has no such maps. The caller disposes of it once the program is
 * loaded.
 */
export function makeJumpTable(program: string, { targets }: LinkedJumpTable, token: Token | null): BpfMap {
  const map = create(program, targets.length, token)
  try {
    const value = new Uint8Array(VALUE_BYTES)
    const view = new DataView(value.buffer)
    for (const [i, target] of targets.entries()) {
      view.setUint32(0, target, true)
      map.update(i, value)
    }
    map.freeze()
    return map
  } catch (error) {
    map.close()
    throw error
  }
}

function create(program: string, maxEntries: number, token: Token | null): BpfMap {
  const spec = { type: 'insn_array', keyBytes: 4, valueBytes: VALUE_BYTES, maxEntries } as const
  try {
    return BpfMap.create({ ...spec, name: '.jumptables', token })
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'EINVAL') throw error
    throw new NotSupportedError(`Program "${program}" has a jump table, which this kernel does not know`, {
      cause: error,
      context: { program, type: 'insn_array' },
      hint: 'Run Linux 6.19 or newer, or compile without jump tables: -mllvm -bpf-min-jump-table-entries=1000000, or -mcpu=v3',
    })
  }
}
