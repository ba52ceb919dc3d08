// Makes a map each second until it is told that it may not (EPERM), and says how that went, the same answer once.
// Run it with rights that were lent:
//
//   bpftoken run --policy examples/policies/two-maps.yaml -- node examples/map-maker.cjs
const { BpfMap } = require('bpftoken/ebpf')

const kept = []
let said

function say(text) {
  if (text !== said) console.log(text)
  said = text
}

function make() {
  try {
    kept.push(BpfMap.create({ type: 'hash', keyBytes: 4, valueBytes: 4, maxEntries: 16 }))
    say(`map ${kept.length}: made`)
  } catch (error) {
    say(`one more map: ${error.errnoName}`)
    // Over the limit (EDQUOT) one may try again later.
    if (error.errnoName !== 'EDQUOT') return
  }
  setTimeout(make, 1000)
}

make()
