/**
 * What `npm install` runs: nothing, where what is native came with the package and loads. Else it
 * is compiled here; where it cannot be, one line says what is missing. With --build it is compiled
 * anyhow. On other systems than Linux nothing native is of use: see src/cli/elsewhere.ts.
 */
'use strict'
const { spawnSync } = require('node:child_process')
const { existsSync } = require('node:fs')
const path = require('node:path')
const { nodeHeaders } = require('./node-headers.cjs')

const PACKAGE = path.join(__dirname, '..')

/** Whether all parts are here, and the addon suits this Node. */
function isThere() {
  const folders = ['build/Release', `prebuilds/linux-${process.arch}`]
  const has = name => folders.some(folder => existsSync(path.join(PACKAGE, folder, name)))
  if (!['bpftoken-launch', 'bpftoken-executor', 'bpftoken-run', 'bpftoken-hook', 'bpftoken-runc', 'bpftoken-launchd', 'bpftoken-hold'].every(has)) return false
  try {
    require('../dist/sys/prebuilt.js').loadAddon()
    return true
  } catch {
    return false // In a clone there may be no dist/ yet.
  }
}

/** What compiling takes and this machine lacks, each with a way to get it. */
function missing(headers) {
  const compiler = process.env['CC'] ?? 'cc'
  // CC may hold options, too.
  const works = spawnSync('sh', ['-c', `command -v ${compiler.split(' ')[0]}`]).status === 0
  return [
    ...(works ? [] : ['a C compiler (Debian: apt-get install gcc libc6-dev; Alpine: apk add gcc musl-dev linux-headers)']),
    ...(headers === undefined
      ? ["Node's headers (Debian: apt-get install libnode-dev; Alpine: apk add nodejs-dev; Node's own archives have them)"]
      : []),
  ]
}

function main() {
  if (process.platform !== 'linux') return 0
  if (!process.argv.includes('--build') && isThere()) return 0
  const headers = nodeHeaders()
  const lacking = missing(headers)
  if (lacking.length > 0) {
    console.error(`bpftoken: nothing prebuilt is here for linux-${process.arch}; to compile it, this is missing: ${lacking.join(', and ')}`)
    return 1
  }
  const out = path.join(PACKAGE, 'build/Release')
  const built = spawnSync('sh', [path.join(__dirname, 'build.sh'), out, 'bpftoken.node', 'programs'], {
    stdio: 'inherit',
    env: { ...process.env, NODE_INCLUDE: headers },
  })
  return built.status ?? 1
}

process.exitCode = main()
