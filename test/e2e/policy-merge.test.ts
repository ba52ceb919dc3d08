/** policy merge: what comes out allows both, says where each right is from, and asks what differs. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { cli } from '../helpers/cli.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

const policy = (name: string, spec: string): string =>
  scratch.write(
    `${name}.yaml`,
    `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: ${name} }\nspec:\n${spec}`,
  )
const XDP = policy('edge', '  rights:\n    progs:\n      - xdp # program "pass"\n    attachs: [xdp]\n')
const MAPS = policy('maps', '  rights:\n    maps:\n      - hash # map "flows"\n    progs: [xdp]\n')
const LIMITED = policy('limited', '  rights: { progs: [xdp] }\n  limits: { maps: 3 }\n')

test('policy merge says of each right whose it is, and keeps its comment', async () => {
  const { status, stdout, stderr } = await cli(['policy', 'merge', XDP, MAPS])
  assert.equal(status, 0, stderr)
  assert.ok(stdout.includes(`- xdp # ${XDP}: program "pass"; ${MAPS}\n`), stdout)
  assert.ok(stdout.includes(`- hash # ${MAPS}: map "flows"\n`), stdout)
  assert.match(stdout, /^ {2}name: "edge-maps"$/m)
})

test('policy merge -o writes a policy that differs from neither but by more', async () => {
  const out = join(scratch.path, 'out.yaml')
  const { status, stdout, stderr } = await cli(['policy', 'merge', XDP, MAPS, '-o', out])
  assert.equal(status, 0, stderr)
  assert.match(stdout, /allows what .* allow; risk medium$/m)
  for (const one of [XDP, MAPS]) {
    const compared = await cli(['policy', 'diff', one, out])
    assert.equal(compared.status, 1)
    assert.doesNotMatch(compared.stdout, / less$/m)
  }
  // And merging again changes no right.
  const again = await cli(['policy', 'merge', out, XDP, '--json'])
  const once = await cli(['policy', 'merge', XDP, MAPS, '--json'])
  const rightsOf = ({ stdout: text }: { stdout: string }) => JSON.parse(text).policy.rights
  assert.deepEqual(rightsOf(again), rightsOf(once))
})

test('policy merge refuses limits that differ, names the option, and writes nothing; told, it obeys', async () => {
  const out = join(scratch.path, 'refused.yaml')
  const refused = await cli(['policy', 'merge', XDP, LIMITED, '-o', out])
  assert.notEqual(refused.status, 0)
  assert.match(refused.stderr, /spec\.limits\.maps/)
  assert.match(refused.stderr, /--limits a\|b/)
  assert.ok(!existsSync(out))
  const told = await cli(['policy', 'merge', '--limits', 'b', XDP, LIMITED, '-o', out])
  assert.equal(told.status, 0, told.stderr)
  assert.match(readFileSync(out, 'utf8'), /^ {2}limits:\n {4}maps: 3$/m)
})

test('policy merge takes no hostile input: too large, not valid, twice standard input', async () => {
  const large = scratch.write('large.yaml', `# ${'x'.repeat(300_000)}\n`)
  assert.notEqual((await cli(['policy', 'merge', XDP, large])).status, 0)
  assert.equal((await cli(['policy', 'merge', XDP, scratch.write('bad.yaml', 'kind: x\n')])).status, 2)
  assert.equal((await cli(['policy', 'merge', '-', '-'])).status, 2)
})

test('the examples merge with one another wherever their terms do', async () => {
  const library = join(ROOT, 'examples/policies/library')
  const { status, stdout, stderr } = await cli([
    ...['policy', 'merge', join(library, 'nsd-xdp.yaml'), join(library, 'suricata.yaml')],
  ])
  assert.equal(status, 0, stderr)
  assert.match(stdout, /nsd-xdp\.yaml: .*; .*suricata\.yaml: /)
})
