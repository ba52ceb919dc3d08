/**
 * Objects that name what lives in modules of the kernel: functions, a variable, types, places to
 * attach. All of it is Debian's own, and loaded while this process runs. Runs in a VM, since modules
 * are loaded and unloaded:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/modules.test.ts
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { attachProgram } from '../../src/ebpf/attach/section.ts'
import { Btf, type BtfComposite } from '../../src/ebpf/btf/btf.ts'
import { kernelBtf } from '../../src/ebpf/kernel/btf.ts'
import { type LoadedObject, loadObject } from '../../src/ebpf/load/object.ts'
import { GlobalVariables } from '../../src/ebpf/object/global-variables.ts'
import { parseObject } from '../../src/ebpf/object/spec.ts'
import { ethernet, ipv4, packet, udp } from '../../src/ebpf/test-run/packet.ts'
import { runProgram } from '../../src/ebpf/test-run/run-program.ts'
import { CMDS } from '../../src/ebpf/type-names.ts'
import { type BpftokenError, ConflictError, NotFoundError, VerifierError } from '../../src/errors.ts'
import { planRights } from '../../src/needs/plan.ts'
import type { Masks } from '../../src/policy/vocabulary.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { openFds, traceFds } from '../../src/sys/fd.ts'
import { inVm, isRoot, kernelSince, ROOT } from '../helpers/machine.ts'
import { LoadLab } from '../kernel/objects/load-lab.ts'

const skip = !isRoot ? 'needs root' : inVm ? false : 'runs in a VM: make test-vm'

const FILE = join(ROOT, 'test/fixtures/modules.bpf.o')
const spec = parseObject(readFileSync(FILE), { name: 'modules' })
const ENOENT = 2

function load(...only: string[]): Promise<LoadedObject> {
  return loadObject(spec, { token: null, only })
}

async function refused<E extends BpftokenError>(
  kind: abstract new (...args: never[]) => E,
  program: string,
  message: RegExp,
  hint: RegExp,
): Promise<void> {
  await assert.rejects(load(program), (error: unknown) => {
    assert.ok(error instanceof kind, `${error}`)
    assert.match(error.message, message)
    assert.match(error.hint ?? '', hint)
    return true
  })
}

async function run(object: LoadedObject, program: string): Promise<number> {
  return (await runProgram(object.program(program), { packet: packet(ethernet(), ipv4(), udp()) })).returned
}

async function ran(program: string): Promise<number> {
  using object = await load(program)
  return await run(object, program)
}

function global(object: LoadedObject, name: string): number {
  const { valueTypeId } = spec.maps.find(map => map.name === '.bss')!
  return Number(new GlobalVariables(spec.btf!.types, valueTypeId).get(object.map('.bss').lookup(0)!, name))
}

/** Whether nf_conntrack has its own idea of what it shares with nf_nat. */
function ownsTypeOfBoth(): boolean {
  const types = Btf.parse(readFileSync('/sys/kernel/btf/nf_conntrack'), kernelBtf().types)
  return types.find('nf_conn___init', 'struct').some(id => id >= types.firstId)
}

const modprobe = (...args: string[]): Buffer => execFileSync('modprobe', args)
const isLoaded = (module: string): boolean => existsSync(`/sys/module/${module}`)

describe('modules', { skip, concurrency: 1 }, () => {
  before(() => {
    traceFds()
    for (const module of ['nf_conntrack', 'nf_nat', 'x_tables', 'watchdog'])
      assert.equal(isLoaded(module), false, `${module} is loaded already`)
  })
  after(async () => {
    await endExecutors()
    assert.deepEqual(openFds(), [])
  })

  test('what is in a module that is not loaded is not there, and it is said that one may have it', async () => {
    await refused(NotFoundError, 'find', /no function "bpf_(ct_release|xdp_ct_lookup)"/, /^Load the module/)
    await refused(NotFoundError, 'variable', /no variable "xt_recseq"/, /^Load the module/)
    await refused(NotFoundError, 'on_release', /"bpf_ct_release", which this kernel/, /^Load the module/)
    await refused(NotFoundError, 'on_translation', /module "nf_nat" is not loaded/, /modprobe nf_nat/)
    await refused(NotFoundError, 'on_start', /"watchdog_start"/, /^Load the module/)
    assert.equal(await ran('weak'), 0)
    await assert.rejects(load('types'), (error: unknown) => {
      assert.ok(error instanceof VerifierError, `${error}`)
      assert.match(error.message, /"struct bpf_ct_opts___field::error" does not exist in this kernel/)
      return true
    })
  })

  test('functions of modules are called, once the modules are loaded', async () => {
    modprobe('nf_nat')
    using object = await load('make', 'find')
    assert.equal(await run(object, 'find'), ENOENT)
    assert.equal(await run(object, 'make'), 1)
    assert.equal(await run(object, 'find'), 1)
  })

  test('types of a module that are not those that were read are not used', async () => {
    const file = '/sys/kernel/btf/nf_conntrack'
    const other = '/run/other-nf_conntrack'
    // The last byte of a name, as of another build.
    const bytes = readFileSync(file)
    bytes[bytes.length - 2]! ^= 1
    writeFileSync(other, bytes)
    ;(await load('find'))[Symbol.dispose]()
    execFileSync('mount', ['--bind', other, file])
    try {
      await assert.rejects(load('find'), (error: unknown) => {
        assert.ok(error instanceof ConflictError, `${error}`)
        assert.match(error.message, /^Module "nf_conntrack" was exchanged/)
        return true
      })
    } finally {
      execFileSync('umount', [file])
      rmSync(other)
    }
    ;(await load('find'))[Symbol.dispose]()
  })

  test('one program calls functions of two modules', async t => {
    modprobe('nf_flow_table')
    assert.equal(await ran('two'), (ENOENT << 8) | ENOENT)
    if (!ownsTypeOfBoth()) {
      assert.equal(await ran('translate'), 1)
      return
    }
    // Not for us to mend: the id of its type is not that of the other module's.
    t.diagnostic('this kernel was built with a second struct nf_conn___init in nf_conntrack')
    await refused(
      VerifierError,
      'translate',
      /expected pointer to STRUCT nf_conn___init but R1 has a pointer to STRUCT nf_conn___init/,
      /^/,
    )
  })

  test('a function of another prototype is refused where it is strong, and missing where it is weak', async () => {
    await refused(
      ConflictError,
      'other_prototype',
      /"bpf_ct_release___number" .* incompatible with that of module "nf_conntrack"/,
      /^Declare it as this kernel has it/,
    )
    assert.equal(await ran('weak'), 1)
  })

  test('types of a module are what CO-RE resolves against', async () => {
    modprobe('x_tables')
    const module = Btf.parse(readFileSync('/sys/kernel/btf/x_tables'), kernelBtf().types)
    const { size } = module.type(module.find('xt_af', 'struct')[0]!) as BtfComposite
    // netns_id comes first, then the error.
    assert.equal(await ran('types'), (1 << 16) | (size << 8) | 4)
  })

  test('a variable of a module is read, for each CPU', async () => {
    using object = await load('variable')
    using link = attachProgram(object, 'variable')
    readFileSync('/proc/self/stat')
    assert.ok(link.info().id > 0)
    assert.ok(global(object, 'sequence') >= 1000)
    using without = await load('missing_variable')
    assert.ok(without.program('missing_variable').info().id > 0)
  })

  test('functions and tracepoints of modules are attached to, also by the name of the module', async () => {
    modprobe('softdog')
    const translates = !ownsTypeOfBoth()
    const programs = ['find', 'on_release', 'on_translation', 'on_start']
    using object = await load(...programs, ...(translates ? ['translate'] : []))
    using _release = attachProgram(object, 'on_release')
    using _translation = attachProgram(object, 'on_translation')
    using _start = attachProgram(object, 'on_start')
    assert.equal(await run(object, 'find'), 1)
    assert.equal(global(object, 'released'), 1)
    // The connection is there already, so making it fails; but that is after the translation.
    if (translates) await run(object, 'translate')
    assert.equal(global(object, 'translated'), translates ? 1 : 0)
    const dog = openSync('/dev/watchdog', 'w')
    // By this the device knows that closing it is meant. It may be started again by each write.
    writeSync(dog, 'V')
    closeSync(dog)
    assert.ok(global(object, 'started') >= 1, 'watchdog_start was not seen')
    await refused(NotFoundError, 'in_other_module', /module "nf_nat" has no such target/, /another target/)
  })

  test('a module that is unloaded is gone, and is found when it comes again', async () => {
    modprobe('-r', 'x_tables')
    await refused(NotFoundError, 'variable', /no variable "xt_recseq"/, /^Load the module/)
    modprobe('x_tables')
    using object = await load('variable')
    assert.equal(object.programs.size, 1)
  })

  test('under a token, types of modules take btf_get_fd_by_id and sys_admin, since Linux 6.15', async () => {
    const { masks } = planRights([{ name: 'modules', spec }], { loader: 'bpftoken', programs: ['find'] })
    const bit = 1n << BigInt(CMDS.number('btf_get_fd_by_id'))
    const all: Masks = { ...masks, cmds: masks.cmds | bit }
    const request = { file: FILE, only: ['find'], run: 'find' }
    const under = async (capabilities: readonly string[], rights: Masks) => {
      const lab = await LoadLab.start(capabilities)
      try {
        return await lab.load(rights, request)
      } finally {
        lab[Symbol.dispose]()
        await lab.ended
      }
    }
    const many = ['bpf', 'net_admin', 'perfmon', 'sys_admin']
    const answer = await under(many, all)
    if (!kernelSince(6, 15)) {
      assert.match(answer.message ?? '', /opens no types under a token.* module "nf_conntrack"/)
      assert.match(answer.hint ?? '', /Linux 6\.15/)
      return
    }
    assert.equal(answer.ok, true, answer.message)
    // In a network namespace of its own there is no such connection.
    assert.equal(answer.verdict, 'pass')
    const withoutRight = await under(many, masks)
    assert.match(withoutRight.message ?? '', /types of module "nf_conntrack"/)
    assert.equal(withoutRight.errnoName, 'EPERM')
    assert.match(withoutRight.hint ?? '', /Missing right: cmds btf_get_fd_by_id/)
    const withoutCapability = await under(['bpf', 'net_admin', 'perfmon'], all)
    assert.equal(withoutCapability.errnoName, 'EPERM')
    assert.match(withoutCapability.hint ?? '', /Missing capability: CAP_SYS_ADMIN/)
  })
})
