/** src/uapi/bpf.ts against the running kernel: what both know must be equal. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { readUapi, type Uapi } from '../../scripts/gen-uapi.ts'
import { Btf } from '../../src/ebpf/btf/btf.ts'
import * as generated from '../../src/uapi/bpf.ts'
import type { Fields, Struct } from '../../src/uapi/codec.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'
const options = existsSync(VMLINUX) ? {} : { skip: `${VMLINUX} is missing: the kernel has no BTF` }

type Tables = Record<string, Record<string, number | bigint> | Struct<Fields>>

/**
 * Differences between our tables and a kernel's: `wrong` breaks the ABI, `unknown` is only newer
 * than we are.
 */
function compare(tables: Tables, kernel: Uapi): { wrong: string[]; unknown: string[]; compared: number } {
  const wrong: string[] = []
  const unknown: string[] = []
  let compared = 0
  const equal = (what: string, ours: unknown, theirs: unknown) => {
    compared++
    if (ours === undefined) unknown.push(what)
    else if (ours !== theirs) wrong.push(`${what}: ${ours} here, ${theirs} in the kernel`)
  }
  for (const [name, { values }] of kernel.enums) {
    const ours = tables[name] as Record<string, number | bigint> | undefined
    for (const { name: member, value } of values) equal(`${name}.${member}`, ours?.[member], value)
  }
  for (const [name, { fields }] of kernel.structs) {
    const ours = (tables[name] as Struct<Fields> | undefined)?.fields
    for (const { name: member, off, size } of fields) {
      const field = ours?.[member]
      equal(`${name}.${member}`, field && `${field.off}+${field.size}`, `${off}+${size}`)
    }
  }
  return { wrong, unknown, compared }
}

test('bpf.ts agrees with the running kernel', options, t => {
  const kernel = readUapi(Btf.parse(readFileSync(VMLINUX)))
  const { wrong, unknown, compared } = compare(generated, kernel)
  for (const name of unknown) t.diagnostic(`only in this kernel: ${name}`)
  assert.deepEqual(wrong, [])
  assert.ok(compared - unknown.length > 500, `only ${compared - unknown.length} facts could be compared`)
})

test('bpf.ts comparison fails when a value or an offset is corrupted', options, () => {
  const bytes = readFileSync(VMLINUX)
  const kernel = readUapi(Btf.parse(bytes))
  const load = { ...generated.bpf_cmd, BPF_PROG_LOAD: 6 }
  const fields = {
    ...generated.bpf_token_info.fields,
    allowed_maps: generated.bpf_token_info.fields.allowed_cmds,
  }
  const tables = { ...generated, bpf_cmd: load, bpf_token_info: { ...generated.bpf_token_info, fields } }
  assert.deepEqual(compare(tables as Tables, kernel).wrong, [
    'bpf_cmd.BPF_PROG_LOAD: 6 here, 5 in the kernel',
    ...(kernel.structs.has('bpf_token_info')
      ? ['bpf_token_info.allowed_maps: 0+8 here, 8+8 in the kernel']
      : []),
  ])
})

test('bpf.ts comparison lists, and does not fail on, what only the kernel has', options, () => {
  const kernel = readUapi(Btf.parse(readFileSync(VMLINUX)))
  const { BPF_TOKEN_CREATE: _, ...older } = generated.bpf_cmd
  const { wrong, unknown } = compare({ ...generated, bpf_cmd: older } as Tables, kernel)
  assert.deepEqual(wrong, [])
  if (kernel.enums.get('bpf_cmd')?.values.some(v => v.name === 'BPF_TOKEN_CREATE')) {
    assert.ok(unknown.includes('bpf_cmd.BPF_TOKEN_CREATE'))
  }
})
