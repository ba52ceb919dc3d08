/** What is read of what a runtime says: who asks for what, where the root will be, what it could use. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KnownContainer } from '../../../../src/daemon/containers/known.ts'
import {
  type HookBody,
  isAskedByAnother,
  requireBeingMade,
  rootfsOf,
  wantedBy,
} from '../../../../src/daemon/containers/oci-state.ts'
import { bpfUnder } from '../../../../src/daemon/containers/preflight.ts'

const POLICY = 'bpftoken.dev/policy'
const INPUT = { code: 'BPFTOKEN_INPUT' }

function body(state: object = {}, config?: HookBody['config']): HookBody {
  return { state: { id: 'c', pid: 7, bundle: '/run/c', ...state }, ...(config && { config }) }
}

const known = (more: object): KnownContainer => ({ id: 'c', runtime: 'nri', announcedAt: '', ...more })

test('rootfsOf() takes the root that crun says, else that of config.json, also beside the bundle', () => {
  const config = { root: { path: 'rootfs' } }
  assert.equal(rootfsOf(body({ root: '/var/merged', bundle: '/' })), '/var/merged')
  assert.equal(rootfsOf(body({ root: 'fs' }, config)), '/run/c/fs')
  assert.equal(rootfsOf(body({}, config)), '/run/c/rootfs')
  assert.equal(rootfsOf(body({}, { root: { path: '/x/../y' } })), '/y')
  assert.throws(() => rootfsOf(body()), INPUT)
  for (const lie of ['/', '/..', '../..', '//'])
    assert.throws(() => rootfsOf(body({}, { root: { path: lie } })), INPUT, lie)
})

test('wantedBy() reads our annotations, knows no others of ours, and none of anybody else', () => {
  const of = (annotations: Record<string, string>) => wantedBy(body({ annotations }), undefined)
  assert.deepEqual(of({ [POLICY]: 'dev' }), { policy: 'dev', anyway: false })
  assert.deepEqual(of({ [POLICY]: 'dev', 'bpftoken.dev/preflight': 'warn', x: 'y' }), {
    policy: 'dev',
    anyway: true,
  })
  assert.equal(of({ 'bpftoken.dev.example/policy': 'dev' }), undefined)
  assert.equal(of({}), undefined)
  for (const wrong of [
    { [POLICY]: '' },
    { [POLICY]: 'Dev' },
    { [POLICY]: '../../etc/shadow' },
    { [POLICY]: 'a'.repeat(64) },
    { [POLICY]: 'dev', 'bpftoken.dev/preflight': 'off' },
    { [POLICY]: 'dev', 'bpftoken.dev/Policy': 'dev' },
    { 'bpftoken.dev/preflight': 'warn' },
    { [POLICY]: 'dev', 'bpftoken.dev/': '' },
  ])
    assert.throws(() => of(wrong as Record<string, string>), INPUT, JSON.stringify(wrong))
})

test('wantedBy() goes by what was announced, of the container before its pod, and not by the state', () => {
  const state = body({ annotations: { [POLICY]: 'of-the-state' } })
  const pod = { name: 'p', namespace: 'n', uid: 'u', annotations: { [POLICY]: 'of-the-pod' } }
  assert.equal(wantedBy(body(), known({}))?.policy, undefined)
  assert.throws(() => wantedBy(state, known({})), INPUT)
  assert.equal(wantedBy(state, known({ pod }))?.policy, 'of-the-pod')
  assert.equal(wantedBy(state, known({ pod, annotations: { [POLICY]: 'own' } }))?.policy, 'own')
})

test('wantedBy() refuses a state and a config.json that differ', () => {
  const annotations = { [POLICY]: 'dev' }
  const both = wantedBy(body({ annotations }, { annotations }), undefined)
  assert.equal(both?.policy, 'dev')
  assert.throws(() => wantedBy(body({ annotations }, { annotations: { [POLICY]: 'all' } }), undefined), INPUT)
  assert.throws(() => wantedBy(body({ annotations: {} }, { annotations }), undefined), INPUT)
  assert.throws(() => wantedBy(body({ annotations }, { annotations: {} }), undefined), INPUT)
})

test('requireBeingMade() takes the states in which a root is still to come', () => {
  for (const status of ['creating', 'created', undefined]) requireBeingMade(body({ status }).state)
  for (const status of ['running', 'stopped', 'paused', ''])
    assert.throws(() => requireBeingMade(body({ status }).state), INPUT)
})

test('isAskedByAnother() knows a pod by who announced it, and by what runtimes for Kubernetes add, and an image', () => {
  const annotations = { 'io.container.manager': 'libpod' }
  for (const imageMayAsk of [true, false])
    assert.equal(
      isAskedByAnother({ ...body({ annotations }), engine: { imageMayAsk } }, undefined),
      imageMayAsk,
    )
  assert.equal(isAskedByAnother(body({ annotations }), undefined), true)
  assert.equal(
    isAskedByAnother(body({ annotations: { 'io.kubernetes.cri-o.ContainerID': 'x' } }), undefined),
    true,
  )
  assert.equal(isAskedByAnother(body(), undefined), false)
  assert.equal(
    isAskedByAnother(body({ annotations: { 'io.kubernetes.cri-o.TTY': 'false' } }), undefined),
    false,
  )
  assert.equal(
    isAskedByAnother(body({ annotations: { 'io.kubernetes.cri.sandbox-id': 'x' } }), undefined),
    true,
  )
  assert.equal(isAskedByAnother(body(), known({ pod: { name: 'p', namespace: 'n', uid: 'u' } })), true)
  assert.equal(isAskedByAnother(body(), known({})), false)
})

test('bpfUnder() says what a seccomp profile does to bpf(2)', () => {
  const under = (defaultAction: string, ...syscalls: object[]) =>
    bpfUnder({ defaultAction, syscalls: syscalls as never })
  const allow = { names: ['bpf', 'clone'], action: 'SCMP_ACT_ALLOW' }
  const deny = { names: ['bpf'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 }
  const some = { ...allow, args: [{ index: 0, value: 5, op: 'SCMP_CMP_EQ' }] }
  assert.equal(bpfUnder(undefined), 'allowed')
  assert.equal(under('SCMP_ACT_ALLOW'), 'allowed')
  assert.equal(under('SCMP_ACT_LOG'), 'allowed')
  assert.equal(under('SCMP_ACT_ERRNO'), 'refused')
  assert.equal(under('SCMP_ACT_KILL_PROCESS', allow), 'allowed')
  assert.equal(under('SCMP_ACT_ALLOW', deny), 'refused')
  assert.equal(under('SCMP_ACT_ERRNO', { names: ['clone'], action: 'SCMP_ACT_ALLOW' }), 'refused')
  assert.equal(under('SCMP_ACT_ERRNO', some), 'depends')
  assert.equal(under('SCMP_ACT_ERRNO', allow, deny), 'depends')
  assert.equal(under('SCMP_ACT_ALLOW', some), 'allowed')
})
