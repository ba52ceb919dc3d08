/** Where the repository is, and what was fetched or compiled for it. */
import { join } from 'node:path'

export const ROOT = join(__dirname, '..')
export const CACHE = join(ROOT, '.cache')
