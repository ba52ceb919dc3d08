/**
 * Names of maps and programs: at most 15 bytes of letters, digits, `_` and `.`
 * (kernel/bpf/syscall.c, bpf_obj_name_cpy).
 */
import { BPF_OBJ_NAME_LEN } from '../uapi/constants.ts'

/**
 * The name as the kernel takes it: other characters become `_`, as in libbpf, and what is too long
 * is cut. Without this one bad character would fail the whole command with EINVAL.
 */
export function objectName(name: string): Uint8Array {
  return new TextEncoder().encode(name.replace(/[^A-Za-z0-9_.]/g, '_').slice(0, BPF_OBJ_NAME_LEN - 1))
}

/** Text up to the first zero byte. */
export function nameFrom(bytes: Uint8Array | undefined): string {
  if (bytes === undefined) return ''
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))
}
