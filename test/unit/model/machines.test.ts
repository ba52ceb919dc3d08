/** The table of known kernels is what their BTF says. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readKernelEnums } from '../../../src/delegation/vocabulary.ts'
import { Btf } from '../../../src/ebpf/btf/btf.ts'
import { attrShape } from '../../../src/lending/kernel-model.ts'
import { factsFrom } from '../../../src/model/kernel.ts'
import { MACHINE_NAMES } from '../../../src/model/machine-names.ts'
import { knownKernel } from '../../../src/model/machines.ts'
import { MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { VMLINUX_BTF } from '../../../src/uapi/kernel-paths.ts'

const FOLDER = join(__dirname, '../../../.cache/btf')
const files = existsSync(FOLDER) ? readdirSync(FOLDER).filter(name => name.endsWith('.btf')) : []

function factsOf(path: string) {
  return factsFrom('read', { enums: readKernelEnums(path), ...attrShape(Btf.parse(readFileSync(path))) })
}

for (const name of MACHINE_NAMES) {
  const file = files.find(one => one.startsWith(`${name}.`))
  const running = name === '6.18' && existsSync(VMLINUX_BTF) && runs618()
  const path = file === undefined ? (running ? VMLINUX_BTF : undefined) : join(FOLDER, file)
  const skip = path === undefined ? 'the BTF of this kernel is not here (make oracle)' : false
  test(`${name} has the words and attributes of its BTF`, { skip }, () => {
    const [read, known] = [factsOf(path!), knownKernel(name)]
    for (const domain of MASK_DOMAINS) {
      const words = (facts: typeof known) => [...facts.vocabulary[domain].nameOfBit.values()].map(plain)
      assert.deepEqual(words(known), words(read), domain)
      assert.deepEqual(
        [...known.vocabulary[domain].unfit.keys()],
        [...read.vocabulary[domain].unfit.keys()],
        `${domain} that do not fit`,
      )
    }
    const { vocabulary: _k, name: _kn, ...ofKnown } = known
    const { vocabulary: _r, name: _rn, ...ofRead } = read
    assert.deepEqual(ofKnown, ofRead)
  })
}

function runs618(): boolean {
  return readFileSync('/proc/sys/kernel/osrelease', 'utf8').startsWith('6.18.')
}

/** Words were deprecated, and kept their meaning. */
function plain(word: string): string {
  return word.replace(/_deprecated$/, '')
}
