/** Which files a directory of policies stands for. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { test } from 'node:test'
import { policyFilesAt } from '../../../src/cli/policy-file.ts'
import { UsageError } from '../../../src/errors.ts'
import { Scratch } from '../../helpers/scratch.ts'

const pathsAt = (path: string) => policyFilesAt(path).map(file => file.path)

test('in a directory plain files are taken, and no links and pipes', () => {
  using outside = new Scratch()
  const secret = outside.write('secret.yaml', 'secret')
  using scratch = new Scratch()
  const at = (name: string) => `${scratch.path}/${name}`
  mkdirSync(at('below'))
  scratch.write('a.yaml', 'a')
  scratch.write('below/b.yml', 'b')
  symlinkSync(secret, at('link.yaml'))
  symlinkSync(outside.path, at('directory.yaml'))
  symlinkSync(at('none'), at('dangling.yaml'))
  execFileSync('mkfifo', [at('pipe.yaml')])
  assert.deepEqual(pathsAt(scratch.path), [at('a.yaml'), at('below/b.yml')])
  assert.deepEqual(
    policyFilesAt(scratch.path).map(({ text }) => text()),
    ['a', 'b'],
  )
  // What the command line itself names may be a link, to a file and to a directory.
  assert.equal(policyFilesAt(at('link.yaml'))[0]!.text(), 'secret')
  assert.deepEqual(pathsAt(at('directory.yaml')), [`${at('directory.yaml')}/secret.yaml`])
  rmSync(at('a.yaml'))
  rmSync(at('below/b.yml'))
  assert.throws(() => policyFilesAt(scratch.path), UsageError)
})

test('a file that becomes a link after it was found is not followed', () => {
  using outside = new Scratch()
  using scratch = new Scratch()
  const [path, twin] = ['a.yaml', 'b.yaml'].map(name => scratch.write(name, name))
  const found = policyFilesAt(scratch.path)
  rmSync(path!)
  symlinkSync(outside.write('secret.yaml', 'secret'), path!)
  assert.throws(() => found[0]!.text(), /ELOOP/)
  assert.equal(found[1]!.text(), 'b.yaml')
  assert.equal(found[1]!.path, twin)
})
