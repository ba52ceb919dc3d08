// Stands for the package tsx inside a VM, where files that end in .ts hold JavaScript already (see
// initramfs.ts): they only need to be known. NODE_OPTIONS requires it; `--import tsx` also works,
// and costs a thread.
const Module = require('node:module')
const path = require('node:path')

require.extensions['.ts'] = require.extensions['.js']

// zod and yaml are a hundred files, which an emulated processor reads in seconds. Sources get the one
// file of each that the built commands load.
const BUNDLED = ['zod', 'yaml']
const bundled = path.join(__dirname, '../../dist/bundled')
const { _resolveFilename: resolve } = Module
Module._resolveFilename = function (request, parent, ...rest) {
  const ours = BUNDLED.includes(request) && parent?.filename?.endsWith('.ts')
  return resolve.call(this, ours ? path.join(bundled, request) : request, parent, ...rest)
}
