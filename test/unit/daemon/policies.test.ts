/**
 * Of a file that is not good the old policy holds; of a file that others can write nothing does.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { PolicyFiles } from '../../../src/daemon/policies.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { VOCABULARY } from '../policy/sample-kernel.ts'

const text = (name: string, also = '') =>
  `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: ${name} }\nspec: { rights: { cmds: [map_create] }${also} }\n`

class Directory implements Disposable {
  readonly #scratch = new Scratch()
  readonly path = join(this.#scratch.path, 'policies')
  readonly files = new PolicyFiles(this.path, VOCABULARY, process.getuid!())

  constructor() {
    mkdirSync(this.path)
  }

  write(file: string, content: string, mode = 0o644): string {
    const path = join(this.path, file)
    writeFileSync(path, content)
    chmodSync(path, mode)
    return path
  }

  async reload(): Promise<[names: string[], faults: string[]]> {
    await this.files.reload()
    const names = [...this.files.all()].map(({ policy }) => policy.name).sort()
    return [
      names,
      this.files.faults.map(({ file, message }) => `${file.slice(this.path.length + 1)}: ${message}`),
    ]
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
  }
}

test('PolicyFiles reads the plain *.yaml files of a directory, and needs none', async () => {
  using directory = new Directory()
  assert.deepEqual(await directory.reload(), [[], []])
  directory.write('a.yaml', text('a'))
  directory.write('README', 'no policy')
  assert.deepEqual(await directory.reload(), [['a'], []])
  const { digest, file } = directory.files.get('a')!
  assert.match(digest, /^[0-9a-f]{64}$/)
  assert.equal(file, join(directory.path, 'a.yaml'))
  rmSync(directory.path, { recursive: true })
  assert.deepEqual(await directory.reload(), [[], []])
})

test('PolicyFiles keeps the old policy of a file that turns bad, until it is good or gone', async () => {
  using directory = new Directory()
  directory.write('a.yaml', text('a'))
  await directory.reload()
  const { digest } = directory.files.get('a')!
  directory.write('a.yaml', text('a', ', nonsense: 1'))
  const [names, [fault]] = await directory.reload()
  assert.deepEqual(names, ['a'])
  assert.match(fault!, /^a\.yaml: .*unknown field/)
  assert.equal(directory.files.get('a')!.digest, digest)
  directory.write('a.yaml', text('a', ', approval: required'))
  assert.deepEqual(await directory.reload(), [['a'], []])
  assert.notEqual(directory.files.get('a')!.digest, digest)
  rmSync(join(directory.path, 'a.yaml'))
  assert.deepEqual(await directory.reload(), [[], []])
})

test('PolicyFiles refuses what others can write, links, pipes and what is too long, each with the reason', async () => {
  using directory = new Directory()
  directory.write('good.yaml', text('good'))
  directory.write('open.yaml', text('open'), 0o664)
  directory.write('all.yaml', text('all'), 0o646)
  directory.write('long.yaml', `${text('long')}#${'x'.repeat(256 * 1024)}`)
  symlinkSync('good.yaml', join(directory.path, 'link.yaml'))
  mkdirSync(join(directory.path, 'dir.yaml'))
  const [names, faults] = await directory.reload()
  assert.deepEqual(names, ['good'])
  assert.deepEqual(faults, [
    'all.yaml: others than its owner may write to it (mode 646)',
    'dir.yaml: it is no plain file',
    'link.yaml: it is a symbolic link',
    'long.yaml: policy: it is longer than 262144 bytes',
    'open.yaml: others than its owner may write to it (mode 664)',
  ])
  const foreign = new PolicyFiles(directory.path, VOCABULARY, 54321)
  await foreign.reload()
  assert.equal(foreign.count, 0)
  assert.match(foreign.faults[0]!.message, /it belongs to .*, not to user 54321/)
  chmodSync(directory.path, 0o777)
  const [kept, [fault]] = await directory.reload()
  assert.deepEqual(kept, ['good'])
  assert.match(fault!, /others than its owner may write/)
})

test('PolicyFiles gives a name that two files have to the one that had it, else to none', async () => {
  using directory = new Directory()
  directory.write('a.yaml', text('same'))
  directory.write('b.yaml', text('same', ', approval: required'))
  const both = ['a.yaml: 2 files have a policy called "same"', 'b.yaml: 2 files have a policy called "same"']
  assert.deepEqual(await directory.reload(), [[], both])
  rmSync(join(directory.path, 'b.yaml'))
  assert.deepEqual(await directory.reload(), [['same'], []])
  directory.write('b.yaml', text('same', ', approval: required'))
  assert.deepEqual(await directory.reload(), [['same'], both])
  assert.equal(directory.files.get('same')!.policy.approval, 'none')
  renameSync(join(directory.path, 'a.yaml'), join(directory.path, 'a.off'))
  assert.deepEqual(await directory.reload(), [['same'], []])
  assert.equal(directory.files.get('same')!.policy.approval, 'required')
})
