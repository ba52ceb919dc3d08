require('./require.cjs')
const hooks =
  "export const load = (url, context, next) => url.endsWith('.ts') ? { format: 'commonjs', shortCircuit: true } : next(url, context)"
require('node:module').register(`data:text/javascript,${encodeURIComponent(hooks)}`)
