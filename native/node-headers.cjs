/**
 * Where the headers of Node are, with which an addon is compiled. Run as a program it prints that,
 * or ends with status 1.
 */
'use strict'
const { existsSync } = require('node:fs')
const path = require('node:path')

/** Beside Node itself, as its archives have it; where Debian puts them. undefined: nowhere. */
function nodeHeaders() {
  const places = [path.join(path.dirname(process.execPath), '../include/node'), '/usr/include/node']
  return places.find(place => ['node_api.h', 'uv.h'].every(name => existsSync(path.join(place, name))))
}

module.exports = { nodeHeaders }

if (require.main === module) {
  const found = nodeHeaders()
  if (found !== undefined) console.log(found)
  process.exitCode = found === undefined ? 1 : 0
}
