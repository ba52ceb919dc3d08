/**
 * Each form of a plan, word for word: the texts beside this file. After a wanted change,
 * BPFTOKEN_TEST_WRITE=1 writes them anew, to be read in review.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { PLAN_WORDS } from '../../../../src/cli/plan-words.ts'
import { parseObject } from '../../../../src/ebpf/object/spec.ts'
import type { SeccompFact } from '../../../../src/needs/format/container.ts'
import { planLines, SECCOMP_FORMATS } from '../../../../src/needs/format/format.ts'
import { PLAN_FORMATS, type PlanFormat } from '../../../../src/needs/format/names.ts'
import { planRights, type RightsPlan } from '../../../../src/needs/plan.ts'
import { xdpObject } from '../../../helpers/xdp-object.ts'

const XDP = planRights([{ name: 'pass.o', spec: parseObject(xdpObject(), { name: 'pass' }) }], {
  loader: 'libbpf',
})
const FROM = '/usr/share/containers/seccomp.json'
const MADE: SeccompFact = { is: 'made', path: '/etc/bpftoken/pass.json', from: FROM }
const text = (format: PlanFormat, seccomp: SeccompFact = { is: 'unknown' }, plan: RightsPlan = XDP): string =>
  `${planLines(plan, format, { seccomp, words: PLAN_WORDS }).join('\n')}\n`

describe('planLines() is, word for word', () => {
  for (const format of PLAN_FORMATS)
    test(`as ${format}`, () => {
      const file = join(__dirname, `${format}.txt`)
      const made = text(format, SECCOMP_FORMATS[format] === undefined ? undefined : MADE)
      if (process.env['BPFTOKEN_TEST_WRITE'] === '1') writeFileSync(file, made)
      assert.equal(made, readFileSync(file, 'utf8'))
    })
})

describe('planLines()', () => {
  test('names a seccomp profile only where one was made, and else says what the default does', () => {
    const said: [SeccompFact, RegExp][] = [
      [{ is: 'allowed', from: FROM }, /^# .*the default here, lets bpf\(2\) through/m],
      [{ is: 'refused', from: FROM }, /^# .*the default here, refuses[\s\S]*^# .*--seccomp-profile FILE/m],
      [{ is: 'unknown' }, /^# The default seccomp profiles of Podman 5\.4/m],
    ]
    for (const format of Object.keys(SECCOMP_FORMATS) as PlanFormat[]) {
      assert.match(text(format, MADE), /pass\.json/)
      for (const [fact, expected] of said) {
        assert.match(text(format, fact), expected, format)
        assert.doesNotMatch(text(format, fact), /^[^#]*(seccomp=|SeccompProfile=|localhostProfile)/m, format)
      }
    }
  })

  test('says what systemd has no word for, and names the rest', () => {
    const syscall = 1n << 31n
    const both = { ...XDP, masks: { ...XDP.masks, progs: XDP.masks.progs | syscall } }
    for (const [plan, said] of [
      [XDP, false],
      [both, true],
    ] as const) {
      const made = text('systemd', undefined, plan)
      assert.match(made, /^BPFDelegatePrograms=BPFProgTypeSocketFilter,BPFProgTypeXdp$/m)
      assert.equal(/^# .*systemd has no word for progs syscall$/m.test(made), said)
    }
    const alone = text('systemd', undefined, { ...XDP, masks: { ...XDP.masks, progs: syscall } })
    assert.doesNotMatch(alone, /^BPFDelegatePrograms=/m)
  })

  test('quotes the path of the profile as each form wants it', () => {
    const odd: SeccompFact = { is: 'made', path: `/a b/it's $x 100%.json`, from: FROM }
    assert.match(text('podman', odd), /seccomp='\/a b\/it'\\''s \$x 100%\.json' \\$/m)
    assert.match(text('quadlet', odd), /^SeccompProfile=\/a b\/it's \$x 100%%\.json$/m)
    const { services } = parse(text('compose', odd))
    assert.deepEqual(services.NAME.security_opt, [`seccomp=/a b/it's $$x 100%.json`])
    const pod = parse(text('kubernetes', odd)).spec.containers[0].securityContext
    assert.equal(pod.seccompProfile.localhostProfile, `bpftoken/it's $x 100%.json`)
  })

  test('asks for a network of its own exactly where the rights reach one', () => {
    const own = { ...XDP, rights: XDP.rights.filter(({ word }) => word !== 'xdp') }
    for (const format of [...(Object.keys(SECCOMP_FORMATS) as PlanFormat[]), 'systemd'] as const) {
      assert.match(text(format), /network/i, format)
      assert.doesNotMatch(text(format, undefined, own).replaceAll('CAP_NET_ADMIN', ''), /network/i, format)
    }
    assert.match(text('systemd'), /^PrivateNetwork=yes$/m)
  })

  test('writes fields of a pod that Kubernetes has, and of a service that compose has', () => {
    const pod = parse(text('kubernetes', MADE))
    assert.deepEqual(pod, {
      spec: {
        hostUsers: false,
        containers: [
          {
            name: 'NAME',
            securityContext: {
              capabilities: { add: ['BPF', 'NET_ADMIN'] },
              seccompProfile: { type: 'Localhost', localhostProfile: 'bpftoken/pass.json' },
            },
          },
        ],
      },
    })
    const plain = parse(text('kubernetes')).spec.containers[0].securityContext.seccompProfile
    assert.deepEqual(plain, { type: 'RuntimeDefault' })
    assert.deepEqual(parse(text('compose', MADE)), {
      services: {
        NAME: { cap_add: ['BPF', 'NET_ADMIN'], security_opt: ['seccomp=/etc/bpftoken/pass.json'] },
      },
    })
  })
})
