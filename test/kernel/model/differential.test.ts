/**
 * The kernel model against the kernel: random cases, of which each has the same outcome in both. The
 * long run is `make differential`.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { agree } from './agree.ts'

const CASES = Number(process.env['BPFTOKEN_TEST_CASES'] ?? 20_000)

/** What no kernel may be without: each is tried with both outcomes. */
const SEEN = ['map_create', 'prog_load', 'btf_load', 'map_get_fd_by_id']

test('verdict and errno of random cases are those of the kernel', async t => {
  const seed = Date.now() % 1_000_000
  const { differences, counts } = await agree(CASES, seed)
  t.diagnostic(`differential: ${CASES} cases, ${differences.length} differences, SEED=${seed}`)
  assert.deepEqual(differences, [], `SEED=${seed}`)
  for (const command of SEEN) assert.ok((counts.get(`${command} EPERM`) ?? 0) > 10, `${command} EPERM`)
  assert.ok((counts.get('map_create ok') ?? 0) > 100)
  assert.ok((counts.get('prog_load ok') ?? 0) > 10)
  assert.deepEqual(left(), [], 'nothing is left behind')
})

/** Scratch cgroups and processes of the executor. */
function left(): string[] {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find(mounted => mounted.split(' ')[2] === 'cgroup2')
  if (line === undefined) return []
  return readdirSync(line.split(' ')[1]!).filter(name => name.startsWith('bpftoken-model-'))
}
