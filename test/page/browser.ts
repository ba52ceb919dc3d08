/** Debian's Chromium, as scripts/fetch-chromium.sh unpacks it. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'
import { CACHE } from '../../scripts/tree.ts'

const TREE = join(CACHE, 'chromium')
const LIBRARIES = [
  'usr/lib/x86_64-linux-gnu',
  'usr/lib/x86_64-linux-gnu/pulseaudio',
  'lib/x86_64-linux-gnu',
].map(path => join(TREE, path))
const PROGRAM = join(TREE, 'usr/lib/chromium/chromium')

export const needsChromium = (): { skip?: string } =>
  existsSync(PROGRAM) ? {} : { skip: 'Chromium is not there: make chromium' }

/** Starts it without a window. `directory` is its own, for what it writes. */
export function startBrowser(directory: string): Promise<Browser> {
  const fonts = join(directory, 'fonts.conf')
  mkdirSync(join(directory, 'fonts'), { recursive: true })
  writeFileSync(
    fonts,
    `<fontconfig><dir>${TREE}/usr/share/fonts</dir><cachedir>${directory}/fonts</cachedir></fontconfig>`,
  )
  return chromium.launch({
    executablePath: PROGRAM,
    // It runs as root here, and opens nothing but the page.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
    env: { ...process.env, HOME: directory, LD_LIBRARY_PATH: LIBRARIES.join(':'), FONTCONFIG_FILE: fonts },
  })
}
