/**
 * Probes of features: true on every kernel that should have them, and no answer rather than a wrong
 * one without the rights.
 */
import assert from 'node:assert/strict'
import { release } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { kernelBtf, moduleBtfs, openModuleBtf, openVmlinuxBtf } from '../../../src/ebpf/kernel/btf.ts'
import { FEATURES, Features } from '../../../src/ebpf/kernel/features.ts'
import { kernelVersion, readKconfig } from '../../../src/ebpf/kernel/kconfig.ts'
import { findAttachTarget } from '../../../src/ebpf/kernel/type.ts'
import { NotFoundError } from '../../../src/errors.ts'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { endExecutors } from '../../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { inVm, isRoot, kernelSince, needsTokens } from '../../helpers/machine.ts'
import { EVERYTHING } from '../delegation/lab.ts'
import { Worker } from '../delegation/worker.ts'
import type { FeaturesAnswer } from './features-worker.ts'

/** A test that leaves no descriptor behind; objects in the kernel are looked for by the runner. */
function kernelTest(name: string, run: () => void | Promise<void>): void {
  test(name, isRoot ? {} : { skip: 'needs root' }, async () => {
    traceFds()
    await run()
    await endExecutors()
    assert.deepEqual(openFds(), [])
  })
}

const CAPABILITIES = ['bpf', 'perfmon', 'net_admin', 'sys_admin']

/** Features that the running kernel should have: as old, and built with what it takes. */
function expected(): string[] {
  const config = readKconfig()
  const running = kernelVersion()
  return FEATURES.filter(({ since, config: option }) => {
    const [major, minor] = since.split('.').map(Number) as [number, number]
    const isOldEnough = running >= (major << 16) + (minor << 8)
    return isOldEnough && (option === undefined || config.get(option) === 'y')
  }).map(({ name }) => name)
}

kernelTest('Features.has() is true when the kernel is as new as the table says', async () => {
  const features = new Features(null)
  const lacking: string[] = []
  for (const name of expected()) if ((await features.has(name as never)) !== true) lacking.push(name)
  assert.deepEqual(lacking, [], `Linux ${release()} should have these`)
})

kernelTest('Features.has() is conclusive when nothing is refused', async () => {
  const features = new Features(null)
  for (const { name } of FEATURES) assert.equal(typeof (await features.has(name)), 'boolean', name)
})

kernelTest('Features.has() asks the kernel once when many ask at a time', async () => {
  const features = new Features(null)
  const asked = FEATURES.map(({ name }) => [features.has(name), features.has(name)] as const)
  for (const [first, second] of asked) assert.equal(first, second)
  await Promise.all(asked.flat())
})

kernelTest('kernelBtf() and openVmlinuxBtf() give the same types', () => {
  const { bytes, types, name } = kernelBtf()
  assert.equal(kernelBtf().types, types)
  using object = openVmlinuxBtf(null)
  assert.equal(object!.info().name, name)
  assert.equal(object!.info().sizeBytes, bytes.length)
  assert.ok(types.find('task_struct', 'struct').length > 0)
})

kernelTest('findAttachTarget() looks in the kernel or the module that a target names', () => {
  const target = (name: string) => findAttachTarget('p', { attachType: 'trace_fentry' }, name)
  assert.equal(target('vmlinux:vfs_read').id, target('vfs_read').id)
  for (const [name, message, hint] of [
    [
      'no_such_module:vfs_read',
      /module "no_such_module" is not loaded/,
      /^Load the module: modprobe no_such/,
    ],
    ['vmlinux:no_such', /"vmlinux:no_such", which this kernel does not have/, /^Load the module that has it/],
  ] as const)
    assert.throws(
      () => target(name),
      (error: unknown) =>
        error instanceof NotFoundError && message.test(error.message) && hint.test(error.hint ?? ''),
    )
})

kernelTest('openModuleBtf() finds every module that moduleBtfs() lists, and no other', () => {
  for (const { name, types } of moduleBtfs()) {
    using object = openModuleBtf(name, null)
    assert.equal(object?.info().name, name)
    assert.ok(types.count > 0)
  }
  assert.equal(openModuleBtf('no_such_module', null), undefined)
})

/**
 * With a process in namespaces of its own that probes what it may: with a token of these masks, or
 * none.
 */
async function inLab(
  capabilities: readonly string[],
  run: (probe: (masks?: Partial<Masks>) => Promise<FeaturesAnswer>) => Promise<void>,
): Promise<void> {
  const program = join(__dirname, 'features-worker.ts')
  const worker = await Worker.start(
    [process.execPath, '--import', require.resolve('tsx'), program],
    capabilities,
  )
  try {
    await run(async masks => {
      const answer = await worker.ask<FeaturesAnswer>('', masks)
      assert.equal(answer.left, 0, 'descriptors left open')
      return answer
    })
  } finally {
    worker[Symbol.dispose]()
    await worker.ended
  }
}

function named(answer: FeaturesAnswer, value: boolean | null): string[] {
  return Object.entries(answer.features)
    .filter(([, found]) => found === value)
    .map(([name]) => name)
}

/** These need no right: the kernel answers before it asks for one. */
const FREE = ['btf_get_fd_by_id_token', 'token', 'token_info']

test('Features.has() finds with a token of all rights what root finds', needsTokens(), () =>
  inLab(CAPABILITIES, async probe => {
    const answer = await probe(EVERYTHING)
    const features = new Features(null)
    for (const { name } of FEATURES) assert.equal(answer.features[name], await features.has(name), name)
    assert.equal(answer.token, true)
  }),
)

test('Features.has() says nothing, and not no, when there is no token', needsTokens(), () =>
  inLab(CAPABILITIES, async probe => {
    const answer = await probe()
    assert.equal(answer.token, false)
    const conclusive = Object.keys(answer.features).filter(name => answer.features[name] !== null)
    assert.deepEqual(conclusive.sort(), FREE)
  }),
)

test(
  'Features.has() says nothing when the token lends other rights, and tells what those allow',
  needsTokens(),
  () =>
    inLab(CAPABILITIES, async probe => {
      const root = new Features(null)
      const onlyTypes = await probe({ cmds: 1n << 18n })
      for (const { name } of FEATURES) {
        const plain = name.startsWith('btf') || name === 'module_btf' || FREE.includes(name)
        assert.equal(onlyTypes.features[name], plain ? await root.has(name) : null, name)
      }
      // Array maps, and nothing that goes into them or is of another type.
      const onlyMaps = await probe({ cmds: 1n << 0n, maps: 1n << 2n })
      const free = await Promise.all(FREE.map(name => root.has(name as never)))
      assert.deepEqual(named(onlyMaps, true).sort(), ['array_mmap', ...FREE.filter((_, i) => free[i])])
      // Some of them are newer than tokens.
      assert.deepEqual(
        named(onlyMaps, false).sort(),
        FREE.filter((_, i) => !free[i]),
      )
    }),
)

test(
  'Features.has() says nothing when the token lends rights and the capability is missing',
  // Without CAP_PERFMON an older verifier walks the loop of a probe on paths that are only
  // speculative, without end.
  inVm && !kernelSince(6, 17)
    ? { skip: 'bounded_loop takes this verifier minutes in emulation' }
    : needsTokens(),
  () =>
    inLab(['bpf'], async probe => {
      const answer = await probe(EVERYTHING)
      assert.equal(answer.token, true)
      const root = new Features(null)
      for (const name of [
        'xdp_frags',
        'perf_link',
        'probe_read_kernel',
        'bpf_cookie',
        'arg_ctx_tag',
        'uprobe_multi',
      ])
        assert.equal(answer.features[name], null, name)
      // Refused only because of the capability, by the verifier.
      assert.equal(answer.features['bounded_loop'], null)
      for (const name of ['btf_func', 'global_data', 'ringbuf', 'syscall_program'] as const)
        assert.equal(answer.features[name], await root.has(name), name)
    }),
)
