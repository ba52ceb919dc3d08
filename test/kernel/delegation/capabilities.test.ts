/**
 * Capabilities inside the namespace: each class needs its own, as src/policy/kernel-classes.ts
 * says.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Token } from '../../../src/ebpf/token.ts'
import { PROGRAM_CLASSES } from '../../../src/policy/kernel-classes.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { NET_ADMIN_MAPS } from '../../../src/uapi/bpf-needs.ts'
import { asHostRoot, progCommand } from './attributes.ts'
import { lab, parts, targets, withLabAndParts } from './fixture.ts'
import { type Cap, callWithin, EVERYTHING, openIn, outcome, tokenWithin, vocabulary } from './lab.ts'

withLabAndParts()

test('BPF_PROG_LOAD under a token needs exactly the capabilities of the class table', t =>
  lab.lending(EVERYTHING, ({ token }) => {
    const wrong: string[] = []
    let types = 0
    for (const [type, { attachs, capabilities }] of Object.entries(PROGRAM_CLASSES)) {
      const attach = attachs.find(
        name =>
          vocabulary.attachs.bitOfName.has(name) &&
          asHostRoot(progCommand(type, name, undefined, targets)) === 'ok',
      )
      if (attach === undefined) continue // Not in this kernel; the rights matrix counts those.
      types++
      const load = (caps: readonly Cap[]) => lab.run(progCommand(type, attach, token.number, targets), caps)
      const needed: Cap[] = ['bpf', ...(capabilities as readonly Cap[])]
      const expect = (caps: readonly Cap[], wanted: string) => {
        const got = load(caps)
        if (got !== wanted) wrong.push(`${type} with ${caps.join('+') || 'none'}: ${got}, not ${wanted}`)
      }
      expect(needed, 'ok')
      expect(['sys_admin'], 'ok')
      for (const one of needed)
        expect(
          (['bpf', 'net_admin', 'perfmon'] as const).filter(cap => cap !== one),
          'EPERM',
        )
    }
    t.diagnostic(`${types} program types`)
    assert.ok(types >= 25)
    assert.deepEqual(wrong, [])
  }))

test('BPF_MAP_CREATE under a token needs CAP_BPF, and CAP_NET_ADMIN for the maps of the class table', t =>
  lab.lending(EVERYTHING, ({ token }) => {
    const wrong: string[] = []
    let types = 0
    for (const type of vocabulary.maps.nameOfBit.values()) {
      if (asHostRoot(parts.command(type)) !== 'ok') continue
      types++
      const make = (caps: readonly Cap[]) => lab.run(parts.command(type, token.number), caps)
      const net = (NET_ADMIN_MAPS as readonly string[]).includes(type)
      if (make(['bpf', 'net_admin']) !== 'ok') wrong.push(`${type} with both`)
      if (make(['bpf']) !== (net ? 'EPERM' : 'ok')) wrong.push(`${type} with bpf alone`)
      if (make(['net_admin', 'perfmon']) !== 'EPERM') wrong.push(`${type} without bpf`)
    }
    t.diagnostic(`${types} map types`)
    assert.deepEqual(wrong, [])
  }))

test('a bind mount of the instance makes tokens with the same masks', () =>
  lab.lending({ cmds: 1n, maps: 4n }, async () => {
    const clone = new Fd(callWithin(lab.target, 'open_tree', -100, '/sys/fs/bpf', 1 | 0o2000000))
    assert.equal(outcome(callWithin(lab.target, 'move_mount', clone.number, '', -100, '/mnt', 4)), 'ok')
    clone.close()
    {
      using root = await openIn(lab.target, '/mnt')
      using shared = new Token(new Fd(tokenWithin(lab.target, root.number)))
      assert.deepEqual(shared.info(), { cmds: 1n, maps: 4n, progs: 0n, attachs: 0n })
    }
    assert.equal(outcome(callWithin(lab.target, 'umount2', '/mnt', 2 /* MNT_DETACH */)), 'ok')
  }))
