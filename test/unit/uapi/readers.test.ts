/** What nobody reads is not kept: a list of all that headers have is in the headers. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as constants from '../../../src/uapi/constants.ts'
import { ROOT } from '../../helpers/machine.ts'

const READERS = ['src', 'test', 'scripts', 'bench']
const OWN_TEST = join('test', 'unit', 'uapi', 'constants.test.ts')
const IMPORT = /import \{([^}]*)\} from '[^']*uapi\/constants\.ts'/g

function imported(text: string): string[] {
  return [...text.matchAll(IMPORT)].flatMap(([, names = '']) =>
    names.split(',').map(name => name.trim().replace(/^type /, '')),
  )
}

test('every constant is imported by somebody, other than by its own test', () => {
  const files = READERS.flatMap(folder =>
    (readdirSync(join(ROOT, folder), { recursive: true }) as string[])
      .filter(file => file.endsWith('.ts'))
      .map(file => join(folder, file)),
  ).filter(file => file !== OWN_TEST)
  const read = new Set(files.flatMap(file => imported(readFileSync(join(ROOT, file), 'utf8'))))
  assert.ok(read.has('O_CLOEXEC'), 'imports are not understood')
  assert.deepEqual(
    Object.keys(constants).filter(name => !read.has(name)),
    [],
  )
})
