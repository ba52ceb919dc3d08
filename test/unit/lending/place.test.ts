/** Where a process is, by the name of its cgroup. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { placeOfCgroup } from '../../../src/lending/place.ts'

const ID = '0123456789abcdef'.repeat(4)

test('placeOfCgroup() knows the containers of each runtime, units, and what is neither', () => {
  const container = (runtime: string, id = ID) => ({ kind: 'container', runtime, id })
  for (const [path, place] of [
    [`/machine.slice/libpod-${ID}.scope`, container('podman')],
    [`/machine.slice/libpod-${ID}.scope/container`, container('podman')],
    [`/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${ID}.scope`, container('podman')],
    [`/system.slice/docker-${ID}.scope`, container('docker')],
    [`/docker/${ID}`, container('docker')],
    [`/kubepods.slice/kubepods-pod1.slice/cri-containerd-${ID}.scope`, container('containerd')],
    [`/kubepods.slice/crio-${ID}.scope`, container('crio')],
    ['/lxc.payload.web-1/system.slice/a.service', container('lxc', 'web-1')],
    ['/machine.slice/machine-debian.scope', container('machine', 'debian')],
    ['/system.slice/agent.service', { kind: 'unit', name: 'agent.service' }],
    ['/system.slice/agent.service/below', { kind: 'unit', name: 'agent.service' }],
    ['/', { kind: 'cgroup', path: '/' }],
    ['/docker', { kind: 'cgroup', path: '/docker' }],
    [`/docker/${ID}x`, { kind: 'cgroup', path: `/docker/${ID}x` }],
    ['/libpod-1234.scope2', { kind: 'cgroup', path: '/libpod-1234.scope2' }],
  ] as const)
    assert.deepEqual(placeOfCgroup(path), place, path)
})
