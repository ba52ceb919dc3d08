/** Where a seccomp profile is written, and what is left alone. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { test } from 'node:test'
import { writeProfile } from '../../../src/cli/seccomp-profile.ts'
import { ConflictError, NotFoundError } from '../../../src/errors.ts'
import { planRights } from '../../../src/needs/plan.ts'
import { Scratch } from '../../helpers/scratch.ts'

const plan = planRights([], { loader: 'bpftoken' })

test('a new file and a plain one are written; links, pipes and directories are left alone', () => {
  using scratch = new Scratch()
  const at = (name: string) => `${scratch.path}/${name}`
  const from = scratch.write('base.json', JSON.stringify({ defaultAction: 'SCMP_ACT_ERRNO', syscalls: [] }))
  const write = (name: string) => writeProfile(plan, 'podman', { path: at(name), from })
  scratch.write('old.json', 'old')
  for (const name of ['new.json', 'old.json']) {
    assert.deepEqual(write(name), { is: 'made', path: at(name), from })
    assert.equal(JSON.parse(readFileSync(at(name), 'utf8')).defaultAction, 'SCMP_ACT_ERRNO')
  }
  scratch.write('mine', 'mine')
  symlinkSync(at('mine'), at('link'))
  symlinkSync(at('nothing'), at('dangling'))
  execFileSync('mkfifo', [at('pipe')])
  mkdirSync(at('directory'))
  const before = readdirSync(scratch.path)
  for (const name of ['link', 'dangling', 'pipe', 'directory'])
    assert.throws(() => write(name), ConflictError, name)
  assert.throws(() => writeProfile(plan, 'podman', { path: '/dev/null', from }), ConflictError)
  assert.throws(() => write('none/new.json'), NotFoundError)
  assert.deepEqual(readdirSync(scratch.path), before)
  assert.equal(readFileSync(at('mine'), 'utf8'), 'mine')
  assert.ok(lstatSync(at('link')).isSymbolicLink())
})
