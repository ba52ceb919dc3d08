/** What becomes of a command's answer. The test decides how the command ends. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CLI, execute, type Result } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { Scratch } from '../helpers/scratch.ts'

/** Runs `bpftoken schema`, whose module is replaced by one that gives this promise. */
function withAnswer(scratch: Scratch, promise: string, ...words: string[]): Promise<Result> {
  const preload = scratch.write(
    'preload.cjs',
    `const Module = require('node:module')
    const load = Module._load
    Module._load = (request, ...rest) =>
      /commands\\/schema\\.js$/.test(request) ? { schema: () => ${promise} } : load(request, ...rest)`,
  )
  return execute(process.execPath, ['--require', preload, CLI, 'schema', ...words])
}

test('a command that ends before its answer has failed, and says so, with --json as a document', async () => {
  using scratch = new Scratch()
  const never = 'new Promise(() => {})'
  const plain = await withAnswer(scratch, never)
  assert.deepEqual([plain.status, plain.stdout], [1, ''])
  assert.match(plain.stderr, /^bpftoken: internal error: it ended before there was an answer\n.*defect/)
  const told = await withAnswer(scratch, never, '--json')
  assert.deepEqual([told.status, told.stdout], [1, ''])
  const { error } = checkedDocument('error', told.stderr) as { error: { code: string; message: string } }
  assert.equal(error.code, 'BPFTOKEN_INTERNAL')
  assert.match(error.message, /it ended before there was an answer/)
})

test('a command that gives its answer ends with the status that this says, and tells no failure', async () => {
  using scratch = new Scratch()
  const later = 'new Promise(resolve => setTimeout(resolve, 10, 3))'
  for (const words of [[], ['--json']]) {
    const { status, stdout, stderr } = await withAnswer(scratch, later, ...words)
    assert.deepEqual([status, stdout, stderr], [3, '', ''])
  }
})
