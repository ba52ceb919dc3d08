/** Which native code is loaded: what the package has, whatever the environment says. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { test } from 'node:test'
import { cLibrary, executorPath, launcherPath } from '../../../src/sys/prebuilt.ts'
import { Scratch } from '../../helpers/scratch.ts'

const ROOT = resolve(__dirname, '../../..')
const TSX = require.resolve('tsx')

const builtHere = join(ROOT, 'build/Release/bpftoken.node')
const prebuilt = join(ROOT, `prebuilds/linux-${process.arch}/node.napi.glibc.node`)
const addon = existsSync(builtHere) ? builtHere : prebuilt

/** A package with an addon at this path, and no other. */
function packageWith(scratch: Scratch, path: string): string {
  const directory = join(scratch.path, 'package')
  cpSync(join(ROOT, 'src'), join(directory, 'src'), { recursive: true })
  const file = join(directory, path)
  mkdirSync(dirname(file), { recursive: true })
  copyFileSync(addon, file)
  return directory
}

/** The addon that the package loads, with these variables, in whatever directory. */
function loadedBy(directory: string, env: Readonly<Record<string, string>>, cwd = '/'): string {
  const script = `
    require(${JSON.stringify(join(directory, 'src/sys/prebuilt.ts'))}).loadAddon()
    console.log(Object.keys(require.cache).filter(name => name.endsWith('.node')).join())`
  return execFileSync(process.execPath, ['--import', TSX, '-e', script], {
    encoding: 'utf8',
    cwd,
    env: { PATH: process.env['PATH'], ...env },
  }).trim()
}

const BUILT = 'build/Release/bpftoken.node'
const PREBUILT = `prebuilds/linux-${process.arch}/node.napi.glibc.node`

test('loadAddon() loads what was compiled here, else what came prebuilt', () => {
  for (const path of [BUILT, PREBUILT]) {
    using scratch = new Scratch()
    const directory = packageWith(scratch, path)
    assert.equal(loadedBy(directory, {}), join(directory, path))
  }
})

test('no variable of the environment, and no working directory, chooses which addon is loaded', () => {
  using scratch = new Scratch()
  using foreign = new Scratch()
  const directory = packageWith(scratch, BUILT)
  const other = packageWith(foreign, BUILT)
  mkdirSync(join(other, 'prebuilds/linux-other'), { recursive: true })
  copyFileSync(addon, join(other, 'prebuilds/linux-other/node.napi.node'))
  for (const env of [
    { BPFTOKEN_PREBUILD: other },
    { BPFTOKEN_PREBUILD: other, PREBUILDS_ONLY: '1' },
    { PREBUILDS_ONLY: '1' },
    { npm_config_arch: 'other', npm_config_platform: 'linux', BPFTOKEN_PREBUILD: other },
    { LIBC: 'musl', ARM_VERSION: '6', ELECTRON_RUN_AS_NODE: '1' },
    { INIT_CWD: other, npm_config_prefix: other, NODE_PATH: join(other, 'build/Release') },
  ])
    assert.equal(loadedBy(directory, env, other), join(directory, BUILT), JSON.stringify(env))
})

test('launcher and executor are those of the package', () => {
  for (const path of [launcherPath(), executorPath()]) assert.ok(path.startsWith(`${ROOT}/`), path)
})

test('cLibrary() tells musl by its loader', () => {
  const line = (file: string): string => `7f0000000000-7f0000001000 r--p 00000000 08:01 42    ${file}\n`
  assert.equal(cLibrary(line('/lib/ld-musl-x86_64.so.1')), 'musl')
  assert.equal(cLibrary(line('/lib/ld-musl-aarch64.so.1') + line('/usr/bin/node')), 'musl')
  assert.equal(cLibrary(line('/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2')), 'glibc')
  assert.equal(cLibrary(line('/srv/ld-musl/node')), 'glibc')
  assert.equal(cLibrary(''), 'glibc')
})
