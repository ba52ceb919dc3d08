/**
 * Another security module, for the cases: a BPF program on each hook that the model knows, which
 * refuses where a step says so. Kernels that load no LSM program have none of it.
 */
import { alu64, assemble, exit, ldMapValue, load, mov64, R0, R1, R2 } from '../../../src/ebpf/asm/insn.ts'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import type { ErrnoName } from '../../../src/model/judge.ts'
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { LSM_HOOKS, type LsmHook, type Machine } from '../../../src/model/machine.ts'
import {
  bpf_attr_map_create,
  bpf_attr_prog_load,
  bpf_attr_raw_tracepoint,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { Batch, type Executor, type Step } from './executor.ts'

/** With what every hook refuses: no rule of the model does. */
export const REFUSAL: { readonly name: ErrnoName; readonly number: number } = { name: 'EDOM', number: 33 }

/** The map that says which hooks refuse, one byte each, has this number in the executor. */
const MAP_NUMBER = 901
/** Registers that keep what is attached. */
const FIRST_REGISTER = 40
const ALL_CAPABILITIES = (1n << 41n) - 1n

/** The bits of the hooks that can refuse here: those of `LSM_HOOKS`. Before any other context is made. */
export async function makeHooks(executor: Executor, kernel: KernelFacts, license: bigint): Promise<number> {
  const batch = new Batch()
  const run = async (step: Omit<Step, 'context' | 'capabilities'>): Promise<number> => {
    batch.add({ context: 0, capabilities: ALL_CAPABILITIES, ...step })
    return (await executor.run(batch))[0]!
  }
  const bpf = (cmd: number, attr: Uint8Array, out: number, patches: Step['patches'] = []): Promise<number> =>
    run({ op: 'bpf', cmd, attr, size: attr.length, out, givesFd: true, patches })

  const { maps, progs, attachs } = kernel.vocabulary
  const map = bpf_attr_map_create.encode(
    {
      map_type: maps.bitOfName.get('array')!,
      key_size: 4,
      value_size: LSM_HOOKS.length,
      max_entries: 1,
      map_flags: bpf_map_flags.BPF_F_MMAPABLE,
    },
    72,
  )
  if ((await bpf(bpf_cmd.BPF_MAP_CREATE, map, 0)) < 0) return 0
  await run({ op: 'dup', in: 0, a: MAP_NUMBER })
  await run({ op: 'close', in: 0 })
  let hooks = 0
  for (const [i, hook] of LSM_HOOKS.entries()) {
    const [target] = kernelBtf().types.find(`bpf_lsm_${hook}`, 'func')
    if (target === undefined) continue
    const { bytes } = assemble([
      ldMapValue(R1, MAP_NUMBER, i),
      load('u8', R2, R1, 0),
      mov64(R0, 0),
      alu64('-=', R0, R2),
      exit(),
    ])
    const prog = bpf_attr_prog_load.encode(
      {
        prog_type: progs.bitOfName.get('lsm')!,
        expected_attach_type: attachs.bitOfName.get('lsm_mac')!,
        attach_btf_id: target,
        insns: executor.address(executor.data(bytes)),
        insn_cnt: bytes.length / 8,
        license,
      },
      kernel.attrEnds.prog_load,
    )
    const register = FIRST_REGISTER + i
    if ((await bpf(bpf_cmd.BPF_PROG_LOAD, prog, 0)) < 0) continue
    const attach = bpf_attr_raw_tracepoint.encode({}, 16)
    const made = await bpf(bpf_cmd.BPF_RAW_TRACEPOINT_OPEN, attach, register, [
      [0, bpf_attr_raw_tracepoint.fields.prog_fd.off],
    ])
    await run({ op: 'close', in: 0 })
    if (made >= 0) hooks |= 1 << i
  }
  return hooks !== 0 && (await run({ op: 'hooks', a: MAP_NUMBER })) === 0 ? hooks : 0
}

/** The machine on which these hooks refuse. */
export function machineWith(machine: Machine, refusing: number | undefined): Machine {
  if (refusing === undefined) return machine
  const lsm: Partial<Record<LsmHook, ErrnoName>> = {}
  for (const [i, hook] of LSM_HOOKS.entries()) if ((refusing >> i) & 1) lsm[hook] = REFUSAL.name
  return { ...machine, lsm }
}
