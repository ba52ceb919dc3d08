require.extensions['.ts'] = require.extensions['.js']
const Module = require('node:module'), vm = require('node:vm'), fs = require('node:fs'), path = require('node:path')
const DIR = process.env.CCDIR
if (DIR) {
const fresh = []
Module.prototype._compile = function (content, filename) {
  const file = path.join(DIR, filename.replaceAll('/', '%'))
  let cachedData
  try { cachedData = fs.readFileSync(file) } catch {}
  const script = new vm.Script(Module.wrap(content.replace(/^#!.*/, '')), { filename, cachedData, importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER })
  if (cachedData === undefined || script.cachedDataRejected) fresh.push([script, file])
  const req = id => this.require(id)
  req.resolve = (request, options) => Module._resolveFilename(request, this, false, options)
  req.main = process.mainModule; req.extensions = Module._extensions; req.cache = Module._cache
  return script.runInThisContext().call(this.exports, this.exports, req, this, filename, path.dirname(filename))
}
process.on('exit', () => { for (const [script, file] of fresh) try { fs.writeFileSync(file + process.pid, script.createCachedData()); fs.renameSync(file + process.pid, file) } catch {} })
}
