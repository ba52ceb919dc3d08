/**
 * How well random cases hold the model: each rule of it is changed once, and the cases of some kernel
 * must notice. `make mutate-model`
 *
 *   CASES=300000 SEED=1 tsx test/kernel/model/mutate.ts
 *
 * This kernel is asked first, then those of the virtual machines (KERNEL= and SYSCTL= choose one),
 * each about what is left. It ends when each kernel was asked once and nothing is left, or with the
 * last machine. The end is the list of what no kernel notices, and the score. With CONTINUE=1 it goes
 * on where an earlier run ended: what it found is kept in .cache/model.
 */
import { spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE } from '../../../scripts/tree.ts'
import { NET_ADMIN_MAPS } from '../../../src/uapi/bpf-needs.ts'
import type { MutationResult } from './mutation.ts'
import { chosenVms, inVm, type Vm, vmText } from './vms.ts'

const IN_ANY_CASE = 'it is asked about CAP_NET_ADMIN, and about CAP_BPF in no case'
const FRESH = 'mount(2) has a context of its own, which is new'

/** Mutants that no call can tell from the model, and why. They count neither way. */
const ALIKE: Readonly<Record<string, string>> = {
  'pass PROG_ATTACH: program of the attach type': 'every later check fails with the same EINVAL',
  'swap MAP_CREATE: map type / MAP_CREATE: BPF_F_ZERO_SEED': 'a type that is not there asks nothing',
  'swap MAP_CREATE: BTF object / MAP_CREATE: not the kernel’s BTF': 'what is no BTF is not the kernel’s',
  'swap pin: directory / pin: directory may be searched': 'what is no directory has no such mode',
  'swap pin: name without a dot / OBJ_PIN: new name': 'no name in a bpffs has a dot',
  'swap OBJ_GET: something pinned / OBJ_GET: link without flags': 'what is no object is no link',
  'swap OBJ_GET: link without flags / LSM bpf_prog and bpf_map, of an object by its name':
    'no hook is asked about a link',
  'swap fsconfig: value of delegate_* / fsconfig: CAP_SYS_ADMIN of the host for delegate_*':
    'a value that is not valid names no mask',
  ...Object.fromEntries(NET_ADMIN_MAPS.map(word => [`map types without a capability: ${word}`, IN_ANY_CASE])),
  ...Object.fromEntries(
    [
      'fsopen, fsmount, mount: CAP_SYS_ADMIN over the mount namespace',
      'fsconfig: CAP_SYS_ADMIN of the host for delegate_*',
      'fsconfig: uid and gid',
      'fsconfig: mode',
      'fsconfig: value of delegate_*',
    ].flatMap(first => [
      [`swap ${first} / fsconfig CREATE: once`, FRESH],
      [`swap ${first} / fsconfig: options before creation`, FRESH],
    ]),
  ),
}

const DIRECTORY = join(CACHE, 'model')
const SO_FAR = join(DIRECTORY, 'so-far.json')
const DONE = join(DIRECTORY, 'done')
const HERE = 'this kernel'
/** The working directory of a virtual machine is that of here. */
const ALONG = '.cache/model'

class Score {
  readonly #noticed = new Set<string>()
  readonly #left = new Set<string>()
  readonly #sameErrno = new Set<string>()
  readonly #dependent = new Set<string>()
  #cases = 0
  #asked = 0
  #wrong = 0

  add(result: MutationResult): void {
    this.#cases += result.cases
    this.#asked += result.asked
    this.#wrong += result.wrong
    for (const name of result.noticed) this.#noticed.add(name)
    for (const name of result.left) this.#left.add(name)
    for (const name of result.sameErrno) this.#sameErrno.add(name)
    for (const name of result.dependent) this.#dependent.add(name)
  }

  #unnoticed(names: ReadonlySet<string>): string[] {
    return [...names].filter(name => !this.#noticed.has(name))
  }

  /** What no kernel has noticed so far, and some call might tell. */
  get survivors(): string[] {
    return this.#unnoticed(this.#left).filter(name => ALIKE[name] === undefined)
  }

  /** Of all kernels so far: the next one tries what is left. */
  get result(): MutationResult {
    return {
      cases: this.#cases,
      asked: this.#asked,
      wrong: this.#wrong,
      noticed: [...this.#noticed],
      left: [...this.#left],
      sameErrno: [...this.#sameErrno],
      dependent: [...this.#dependent],
    }
  }

  tell(): void {
    const { survivors } = this
    const alike = this.#unnoticed(this.#left).filter(name => ALIKE[name] !== undefined)
    const sameErrno = this.#unnoticed(this.#sameErrno)
    // A kernel on which both rules are asked says more than one on which they are not.
    const dependent = this.#unnoticed(this.#dependent).filter(name => !this.#left.has(name))
    for (const name of alike) console.log(`  not told apart: ${name}: ${ALIKE[name]}`)
    for (const name of survivors) console.log(`  not noticed: ${name}`)
    console.log(
      `left out: ${sameErrno.length} swaps of rules with the same errno, ` +
        `${dependent.length} of which one asks what the other found, ${alike.length} mutants alike`,
    )
    const all = this.#noticed.size + survivors.length
    const percent = ((this.#noticed.size / all) * 100).toFixed(1)
    console.log(
      `mutation: ${this.#noticed.size} of ${all} mutants noticed (${percent}%), in ${this.#cases} cases, ` +
        `of which kernels were asked about ${this.#asked}`,
    )
    if (this.#wrong > 0) console.log(`${this.#wrong} cases differ without a mutation: see above`)
    process.exitCode = survivors.length === 0 && this.#wrong === 0 ? 0 : 1
  }
}

/** What came of the mutants on the kernel that runs here. */
function here(): MutationResult {
  const out = join(DIRECTORY, 'here.json')
  const file = join(__dirname, 'mutation.ts')
  const run = spawnSync(process.execPath, ['--import', 'tsx', file, '--out', out], { stdio: 'inherit' })
  if (run.status !== 0) throw new Error('the run on this kernel failed')
  return JSON.parse(readFileSync(out, 'utf8')) as MutationResult
}

async function there(vm: Vm): Promise<MutationResult> {
  const { CASES = '60000', SEED } = process.env
  const out = join(DIRECTORY, 'there')
  const { status } = await inVm(vm, {
    file: 'mutation.ts',
    args: ['--only', `${ALONG}/so-far.json`, '--out', '/run/out/there.json'],
    environment: { CASES, SEED },
    along: ALONG,
    out,
  })
  const file = join(out, 'there.json')
  if (status !== 0 || !existsSync(file)) throw new Error(`${vmText(vm)}: status ${status}`)
  const result = JSON.parse(readFileSync(file, 'utf8')) as MutationResult
  rmSync(out, { recursive: true })
  return result
}

async function main(): Promise<void> {
  if (process.env['CONTINUE'] === undefined) rmSync(DIRECTORY, { recursive: true, force: true })
  mkdirSync(DIRECTORY, { recursive: true })
  const score = new Score()
  if (existsSync(SO_FAR)) score.add(JSON.parse(readFileSync(SO_FAR, 'utf8')) as MutationResult)
  const done = new Set(existsSync(DONE) ? readFileSync(DONE, 'utf8').trim().split('\n') : [])
  const kernels = new Set<string>()
  for (const vm of [undefined, ...chosenVms()]) {
    const name = vm === undefined ? HERE : vmText(vm)
    const isOther = vm !== undefined && kernels.has(vm.kernel)
    if (vm !== undefined) kernels.add(vm.kernel)
    if (done.has(name) || (isOther && score.survivors.length === 0)) continue
    console.log(`\n== ${name} ==`)
    score.add(vm === undefined ? here() : await there(vm))
    writeFileSync(SO_FAR, JSON.stringify(score.result))
    appendFileSync(DONE, `${name}\n`)
  }
  console.log('')
  score.tell()
}

void main()
