/** bpftoken-nri as systemd runs it, by exactly the unit of the package, with a runtime that comes late. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { residue, snapshot } from '../../../scripts/residue.ts'
import {
  ConfigureRequestSchema,
  CreateContainerRequestSchema,
  CreateContainerResponseSchema,
  SynchronizeRequestSchema,
} from '../../../src/nri/messages/nri_pb.ts'
import { daemonMachine } from '../../helpers/daemon-machine.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsProgram, ROOT } from '../../helpers/machine.ts'
import { talkTo } from '../../helpers/nri-runtime.ts'
import { Scratch } from '../../helpers/scratch.ts'

const UNIT = 'bpftoken-nri.service'

test(
  'the unit runs it confined: it waits for the runtime, registers, and tells the daemon',
  needsProgram('sid/usr/bin/systemctl'),
  async () => {
    const untouched = snapshot()
    const scratch = new Scratch()
    const machine = await daemonMachine({
      files: {
        'usr/sbin/bpftoken-nri':
          '#!/bin/busybox sh\nexec /usr/bin/node /usr/lib/bpftoken/dist/nri/main.js "$@"\n',
        [`etc/systemd/system/${UNIT}`]: readFileSync(join(ROOT, 'packaging/systemd', UNIT)),
      },
      programs: ['usr/sbin/bpftoken-nri'],
      shown: { 'run/nri': scratch.path },
    })
    const { systemd } = machine
    try {
      await systemd.systemctl('start', 'bpftokend.socket', UNIT)
      assert.equal(await systemd.property(UNIT, 'ActiveState'), 'active', systemd.log)
      assert.equal(await systemd.property(UNIT, 'StatusText'), 'waiting for the runtime')
      const connected = new Promise<Socket>(resolve => {
        const server = createServer(socket => {
          server.close()
          resolve(socket)
        }).listen(join(scratch.path, 'nri.sock'))
      })
      const socket = await connected
      const ask = talkTo(socket)
      await ask(
        'Configure',
        toBinary(ConfigureRequestSchema, create(ConfigureRequestSchema, { runtimeName: 'test' })),
      )
      const synchronize = create(SynchronizeRequestSchema, { containers: [{ id: 'c0', name: 'old' }] })
      await ask('Synchronize', toBinary(SynchronizeRequestSchema, synchronize))
      await eventually(
        async () => (await systemd.property(UNIT, 'StatusText')).startsWith('registered'),
        systemd.log,
      )
      const request = create(CreateContainerRequestSchema, {
        pod: {
          id: 'p',
          name: 'web',
          namespace: 'shop',
          uid: 'u',
          annotations: { 'bpftoken.dev/policy': 'xdp' },
        },
        container: { id: 'c1', name: 'app' },
      })
      const bytes = toBinary(CreateContainerRequestSchema, request)
      // The daemon starts at the first request: on a slow machine that takes longer than a container waits.
      let answer: Uint8Array | undefined
      let why: Error | undefined
      const asked = async (): Promise<boolean> => {
        answer = await ask('CreateContainer', bytes).catch((error: Error) => {
          why = error
          return undefined
        })
        return answer !== undefined
      }
      await eventually(asked, 'it is adjusted', 20_000).catch(error => assert.fail(`${error}: ${why}`))
      const { adjust } = fromBinary(CreateContainerResponseSchema, answer!)
      assert.match(adjust!.hooks!.createRuntime[0]!.path, /^\/usr\/lib\/bpftoken\/.*\/bpftoken-hook$/)
      const status = await systemd.execute(
        'grep',
        'Cap[BEP]',
        `/proc/${await systemd.property(UNIT, 'MainPID')}/status`,
      )
      assert.deepEqual(
        [...status.stdout.matchAll(/\t(\w+)/gu)].map(([, mask]) => BigInt(`0x${mask}`)),
        [1n << 21n, 1n << 21n, 1n << 21n],
      )
      socket.destroy()
      await systemd.systemctl('stop', UNIT)
      assert.equal(await systemd.property(UNIT, 'Result'), 'success')
    } finally {
      await systemd.stop()
      scratch[Symbol.dispose]()
    }
    assert.deepEqual(await residue(untouched), [])
  },
)
