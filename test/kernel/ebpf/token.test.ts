/**
 * findToken() looks where libbpf looks, and is loud or quiet as libbpf is. That it finds one is
 * shown in e2e by `token show`.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { findToken } from '../../../src/ebpf/token.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { needsTokens } from '../../helpers/machine.ts'

const machine = needsTokens()
const VARIABLE = 'LIBBPF_BPF_TOKEN_PATH'
let bpffs: string

before(() => {
  if (machine.skip !== undefined) return
  traceFds()
  bpffs = mkdtempSync(join(tmpdir(), 'bpftoken-token-'))
  execFileSync('mount', ['-t', 'bpf', 'none', bpffs])
})
after(() => {
  if (machine.skip !== undefined) return
  execFileSync('umount', [bpffs])
  rmdirSync(bpffs)
  assert.deepEqual(openFds(), [])
})

test('findToken() throws when the path that was named does not serve, and says why', machine, () => {
  assert.throws(() => findToken({ path: '/no/such/bpffs' }), { op: 'openat2', errnoName: 'ENOENT' })
  assert.throws(() => findToken({ path: tmpdir() }), { op: 'BPF_TOKEN_CREATE', errnoName: 'EINVAL' })
  // A true bpffs, but of the initial user namespace.
  assert.throws(() => findToken({ path: bpffs }), { op: 'BPF_TOKEN_CREATE', errnoName: 'EOPNOTSUPP' })
})

test('findToken() takes the variable as named too, and the option before it', machine, () => {
  const environment = { [VARIABLE]: '/no/such/bpffs' }
  assert.throws(() => findToken({ environment }), { errnoName: 'ENOENT' })
  assert.throws(() => findToken({ path: bpffs, environment }), { errnoName: 'EOPNOTSUPP' })
})

test('findToken() makes no attempt when the path or the variable is empty', machine, () => {
  assert.equal(findToken({ path: '', environment: { [VARIABLE]: '/no/such/bpffs' } }), undefined)
  assert.equal(findToken({ environment: { [VARIABLE]: '' } }), undefined)
})

test('findToken() is quiet when nothing was named and the default place does not serve', machine, () => {
  assert.equal(findToken({ environment: {} }), undefined)
})
