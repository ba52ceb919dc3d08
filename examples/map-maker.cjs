// Makes a map each second, and says how that went, until it is told that it may not (EPERM). Run it with rights that were lent:
//
//   bpftoken run --policy examples/policies/two-maps.yaml -- node examples/map-maker.cjs
const { BpfMap } = require('bpftoken/ebpf')

const kept = []

function make() {
  try {
    kept.push(BpfMap.create({ type: 'hash', keyBytes: 4, valueBytes: 4, maxEntries: 16 }))
    console.log(`map ${kept.length}: made`)
  } catch (error) {
    console.log(`one more map: ${error.errnoName}`)
    // Over the limit (EDQUOT) one may try again later.
    if (error.errnoName !== 'EDQUOT') return
  }
  setTimeout(make, 1000)
}

make()
