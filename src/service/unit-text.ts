/**
 * The units of systemd as they start this very installation, wherever npm has put it. They are
 * printed, not installed: whoever installs them reads them first.
 */
import { lstatSync, readFileSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { InputError } from '../errors.ts'
import { launchdPath } from '../sys/prebuilt.ts'
import { notOwnersAlone } from '../uapi/file-owner.ts'

const UNITS = join(__dirname, '../../packaging/systemd')
/** What the unit hides from the service, and what anybody may fill. */
const HIDDEN = ['/home', '/root', '/run/user', '/tmp', '/var/tmp']
/** No program of Node's. */
const LAUNCHER = 'bpftoken-launchd.service'

/**
 * `name`: of a unit of the package, such as `bpftokend.service`. `program`: the main file that it
 * starts, of this installation. InputError: the service could not see it, or others than root could
 * change what root would run.
 */
export function unitOfThis(name: string, program: string): string {
  const text = readFileSync(join(UNITS, name), 'utf8')
  if (!name.endsWith('.service')) return text
  if (name === LAUNCHER) {
    const launcher = realpathSync(launchdPath())
    requireRoots(launcher)
    requirePlain(launcher)
    return text.replace(/(?<=\n)ExecStart=[^\n]*/, `ExecStart=${launcher}`)
  }
  const node = realpathSync(process.execPath)
  const main = realpathSync(program)
  for (const path of [node, main]) requireRoots(path)
  return unitFor(text, node, main)
}

/** Pure. The unit of the package, with other programs to start. InputError: it cannot be written in a unit. */
export function unitFor(text: string, node: string, main: string): string {
  for (const path of [node, main]) requirePlain(path)
  const cli = join(dirname(main), '../cli/main.js')
  return text
    .replace(/(?<=\n)ExecStart=[^\n]*/, `ExecStart=${node} ${main}`)
    .replace(/(?<=\n)ExecReload=[^\n]*/, `ExecReload=${node} ${cli} reload`)
}

function requirePlain(path: string): void {
  if (/^\/[\w@.+/-]+$/.test(path)) return
  throw new InputError('The path of a program has characters that a unit would need quoted', {
    context: { path },
    hint: 'Install it where the path has letters, digits, and @ . + - _ alone',
  })
}

function requireRoots(path: string): void {
  const hidden = HIDDEN.find(folder => path.startsWith(`${folder}/`))
  if (hidden !== undefined)
    throw new InputError(`${path} lies in ${hidden}, which the service does not see`, {
      hint: 'Install Node and bpftoken for the whole machine, as root: npm install -g bpftoken',
    })
  for (let at = path; ; at = dirname(at)) {
    const { uid, mode } = lstatSync(at)
    const open = notOwnersAlone({ uid, mode }, 0)
    if (open !== undefined)
      throw new InputError(`Root would run what is in ${at}, and ${open}`, {
        context: { path, uid, mode: mode & 0o7777 },
        hint: 'Install Node and bpftoken for the whole machine, as root: npm install -g bpftoken',
      })
    if (at === '/') return
  }
}
