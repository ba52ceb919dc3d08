/** What the browser loads, read once: no path of a request names a file. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { FILE_NAMES } from './gate.ts'
import type { PageFile } from './server.ts'

const SITE = join(__dirname, 'site')

const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  mjs: 'text/javascript; charset=utf-8',
}

export function readFiles(): Map<string, PageFile> {
  return new Map(
    FILE_NAMES.map(name => {
      const type = TYPES[name.replace(/^.*\./, '')]!
      return [name, { type, content: readFileSync(join(SITE, name)) }]
    }),
  )
}
