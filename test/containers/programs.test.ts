/**
 * Unmodified programs that know tokens, in containers that ask by annotation: each loads and
 * attaches there. Without the annotation, and by a policy that has no XDP, the kernel refuses it.
 */
import assert from 'node:assert/strict'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Config, ContainerLab, RUNTIMES } from '../helpers/container-lab.ts'
import { needsProgram } from '../helpers/machine.ts'
import { sidCommand, withSid } from '../helpers/sid.ts'
import { needsWitness, untilAttached, WITNESSES } from '../helpers/witness.ts'

interface Program {
  readonly name: string
  readonly needs: { skip?: string }
  /** Ends with 0 exactly when the program has attached. */
  readonly script: string
  /** What the program itself says when it is refused. */
  readonly refusal: RegExp
}

const ip = sidCommandIfThere('ip')

/** Without the tree there is nothing to run, and tests are skipped. */
function sidCommandIfThere(program: string): string {
  return needsProgram('sid/usr/sbin/xdp-loader').skip === undefined ? sidCommand(program, '/mnt') : program
}

const PROGRAMS: readonly Program[] = [
  {
    name: 'bpftool',
    needs: needsProgram('sid/usr/sbin/xdp-loader'),
    script: `${sidCommandIfThere('bpftool')} prog load /srv/pass.o /sys/fs/bpf/pass && echo attached`,
    refusal: /Operation not permitted|EPERM/,
  },
  {
    name: 'xdp-loader',
    needs: needsProgram('sid/usr/sbin/xdp-loader'),
    script: `${sidCommandIfThere('xdp-loader')} load -m skb lo /srv/pass.o && ${ip} link show dev lo | grep -q prog/xdp && echo attached`,
    refusal: /Operation not permitted|EPERM/,
  },
  {
    name: 'a Go program on cilium/ebpf',
    needs: needsWitness('cilium-ebpf'),
    script: untilAttached('/srv/cilium-ebpf /srv/pass.o', ip),
    refusal: /operation not permitted/,
  },
  {
    name: 'a Rust program on libbpf-rs',
    needs: needsWitness('libbpf-rs'),
    script: untilAttached(
      `${needsWitness('libbpf-rs').skip === undefined ? withSid('/mnt') : ''} /srv/libbpf-rs /srv/pass.o`,
      ip,
    ),
    refusal: /Operation not permitted|PermissionDenied|EPERM/,
  },
]

describe('programs in containers that ask by annotation', needsProgram('podman/usr/bin/podman'), () => {
  let lab: ContainerLab
  before(async () => {
    lab = await ContainerLab.open()
    const lends = readFileSync(join(lab.daemon.policies, 'dev.yaml'), 'utf8')
    // All that loaders try first succeeds by it.
    const lacking = lends.replace('name: dev', 'name: probes').replace('[xdp, socket', '[socket')
    writeFileSync(join(lab.daemon.policies, 'probes.yaml'), lacking)
    await lab.client.reload({})
    for (const { needs, name } of [
      { name: 'cilium-ebpf', needs: needsWitness('cilium-ebpf') },
      { name: 'libbpf-rs', needs: needsWitness('libbpf-rs') },
    ])
      if (needs.skip === undefined) copyFileSync(join(WITNESSES, name), join(lab.scratch.path, name))
  })
  after(() => lab?.[Symbol.asyncDispose]())

  for (const runtime of RUNTIMES)
    for (const { name, needs, script, refusal } of PROGRAMS) {
      const run = (edit?: (config: Config) => void) => {
        lab.bundle('web', script, edit)
        return lab.run(runtime, 'web')
      }

      test(`${runtime}: ${name} loads and attaches with the annotation`, needs, async () => {
        const { status, stdout, stderr } = await run()
        assert.equal(status, 0, `${stdout}${stderr}`)
        assert.match(stdout, /attached/)
      })

      test(`${runtime}: ${name} is refused without it`, needs, async () => {
        const { status, stdout, stderr } = await run(config => {
          delete config.annotations
        })
        assert.notEqual(status, 0, stdout)
        assert.match(`${stdout}${stderr}`, refusal)
      })

      test(`${runtime}: ${name} is refused by a policy that has no XDP`, needs, async () => {
        const { status, stdout, stderr } = await run(config => {
          config.annotations['bpftoken.dev/policy'] = 'probes'
        })
        assert.notEqual(status, 0, stdout)
        assert.match(`${stdout}${stderr}`, refusal)
      })
    }
})
