/**
 * What `plan` says is what attaching takes, too: a program of each type for cgroups attaches with
 * exactly the planned rights, and with every right but net_admin it does not.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isForCgroups } from '../../../src/ebpf/attach/placement.ts'
import { SECTION_RULES } from '../../../src/ebpf/object/section-names.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'
import { planRights } from '../../../src/needs/plan.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'
import { LoadLab } from './load-lab.ts'

const PROGRAM = 'let_pass'
/** What lets all pass that these programs decide on. */
const ALLOW = 1

/** One section for each type, by the type's name. */
const SECTIONS = new Map(
  SECTION_RULES.filter(({ type }) => isForCgroups(type))
    .map(({ type, pattern }) => [type, pattern.replace(/\+$/, '')] as const)
    .reverse(),
)

test(
  'a program of each type for cgroups attaches with its plan, and not without net_admin',
  needsTokens(),
  async t => {
    assert.deepEqual([...SECTIONS.keys()].sort(), [
      ...[
        'cgroup_device',
        'cgroup_skb',
        'cgroup_sock',
        'cgroup_sock_addr',
        'cgroup_sockopt',
        'cgroup_sysctl',
      ],
      'sock_ops',
    ])
    using scratch = new Scratch()
    const cgroup = mkdtempSync(join(cgroupRoot()!, 'bpftoken-attach-rights-'))
    chmodSync(cgroup, 0o755)
    const planned = await LoadLab.start(['bpf', 'net_admin'])
    const less = await LoadLab.start(['bpf', 'perfmon'])
    const onlyToAttach: string[] = []
    try {
      for (const [type, section] of SECTIONS) {
        const bytes = xdpObject(section, PROGRAM, ALLOW)
        const spec = parseObject(bytes, { name: type })
        const { masks, capabilities } = planRights([{ name: type, spec }], { loader: 'bpftoken' })
        assert.deepEqual(
          capabilities.map(({ name }) => name),
          ['bpf', 'net_admin'],
        )
        const load = { file: scratch.write(`${type}.o`, bytes) }
        const request = { ...load, attach: { program: PROGRAM, cgroup } }
        const enough = await planned.load(masks, request)
        assert.ok(enough.ok, `${type}: ${enough.message}: ${enough.hint}`)
        const refused = await less.load(masks, request)
        assert.deepEqual([refused.ok, refused.errnoName], [false, 'EPERM'], type)
        const loads = (await less.load(masks, load)).ok
        assert.equal(capabilities.find(({ name }) => name === 'net_admin')!.toAttach, loads, type)
        if (loads) onlyToAttach.push(type)
      }
    } finally {
      for (const lab of [planned, less]) {
        lab[Symbol.dispose]()
        await lab.ended
      }
      rmdirSync(cgroup)
    }
    t.diagnostic(`${SECTIONS.size} types; only to attach: ${onlyToAttach.join(', ')}`)
    assert.deepEqual(onlyToAttach, ['cgroup_skb'])
  },
)
