/** Small security modules: a BPF-LSM program for each hook, which refuses whatever comes by. */

import { readFileSync } from 'node:fs'
import { Btf } from '../../../src/ebpf/btf/btf.ts'
import type { ErrnoName } from '../../../src/model/judge.ts'
import type { LsmHook } from '../../../src/model/machine.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { native } from '../../../src/sys/native.ts'
import {
  bpf_attach_type,
  bpf_attr_prog_load,
  bpf_attr_raw_tracepoint,
  bpf_cmd,
  bpf_prog_type,
} from '../../../src/uapi/bpf.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import { VMLINUX_BTF } from '../../../src/uapi/kernel-paths.ts'

/** EXDEV: no check of bpf(2) answers with it. */
const ERRNO = 18
export const REFUSAL: ErrnoName = 'EXDEV'

const LICENSE = Buffer.from('GPL\0')
/** r0 = -ERRNO; exit */
const REFUSES = new Uint8Array([0xb7, 0, 0, 0, -ERRNO & 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0])

function must(what: string, result: number): Fd {
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`)
  return new Fd(result)
}

let types: Btf | undefined

/** From now on the hook refuses, all tasks alike, until the result is closed. */
function refuse(hook: LsmHook): Fd {
  types ??= Btf.parse(readFileSync(VMLINUX_BTF))
  const [attach_btf_id] = types.find(`bpf_lsm_${hook}`, 'func')
  if (attach_btf_id === undefined) throw new Error(`this kernel has no LSM hook ${hook}`)
  const { insns, license } = bpf_attr_prog_load.fields
  const attr = bpf_attr_prog_load.encode(
    {
      prog_type: bpf_prog_type.BPF_PROG_TYPE_LSM,
      expected_attach_type: bpf_attach_type.BPF_LSM_MAC,
      insn_cnt: REFUSES.length / 8,
      attach_btf_id,
    },
    120,
  )
  const refs = [attr, insns.off, REFUSES, attr, license.off, LICENSE] as const
  using program = must(`LSM program for ${hook}`, native().bpf(bpf_cmd.BPF_PROG_LOAD, attr, ...refs))
  const open = bpf_attr_raw_tracepoint.encode({ prog_fd: program.number })
  return must(`LSM link of ${hook}`, native().bpf(bpf_cmd.BPF_RAW_TRACEPOINT_OPEN, open.subarray(0, 16)))
}

/** The hooks refuse until the result is disposed of. That of bpf(2) itself comes last, since it would stop us. */
export function refusing(hooks: readonly LsmHook[]): Disposable {
  const links: Fd[] = []
  const end = (): void => {
    for (const link of links.splice(0).reverse()) link.close()
  }
  try {
    for (const hook of [...hooks].sort((a, b) => Number(a === 'bpf') - Number(b === 'bpf')))
      links.push(refuse(hook))
  } catch (error) {
    end()
    throw error
  }
  return { [Symbol.dispose]: end }
}
