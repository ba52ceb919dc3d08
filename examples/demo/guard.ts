/**
 * The second part of the demo: the guard. Runs in a VM, as root, where the kernel takes LSM
 * programs.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { BPFTOKEN, expect, type Outcome, ROOT, said, show, tell } from './stage.ts'

const POLICY = 'examples/policies/two-maps.yaml'

function bpftoken(...args: string[]): Outcome {
  return show(ROOT, `bpftoken ${args.join(' ')}`, [...BPFTOKEN, ...args])
}

/** The workload, in the background: what it says is awaited. */
class Workload {
  readonly #child = spawn(BPFTOKEN[0]!, [...BPFTOKEN.slice(1), 'run', '--policy', POLICY, '--', ...MAKER], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  #output = ''
  readonly ended: Promise<number | null>

  constructor() {
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.on('data', chunk => {
        this.#output += String(chunk)
      })
    this.ended = new Promise(resolve => this.#child.once('close', resolve))
  }

  /** Everything since the last time, once it says this. */
  async until(words: RegExp): Promise<string> {
    const deadline = Date.now() + 60_000
    while (!words.test(this.#output)) {
      if (Date.now() > deadline) throw new Error(`the workload did not say ${words}, but: ${this.#output}`)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    const output = this.#output
    this.#output = ''
    return output
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

const MAKER = [process.execPath, path.join(ROOT, 'examples/map-maker.cjs')]

async function story(): Promise<void> {
  tell('6. The guard is a set of BPF-LSM programs. They are pinned, and enforce without any daemon.')
  expect(bpftoken('guard', 'install'), 0, /^guard installed/)

  tell(
    '7. From now on, that a task could delegate is not enough: nobody allowed this one to.\n   (EACCES, which mount takes for a medium that cannot be written.)',
  )
  expect(
    show(ROOT, 'mount -t bpf -o delegate_cmds=any bpf /mnt', [
      'mount',
      ...['-t', 'bpf', '-o', 'delegate_cmds=any', 'bpf', '/mnt'],
    ]),
    32,
    /./,
  )

  tell('8. What can be lent now can be counted, and ends:')
  said(readFileSync(path.join(ROOT, POLICY), 'utf8'))
  console.log(`  $ bpftoken run --policy ${POLICY} -- node examples/map-maker.cjs &`)
  const workload = new Workload()
  try {
    said(await workload.until(/EDQUOT/))
    const status = bpftoken('guard', 'status')
    expect(status, 0, /two-maps/)
    const [, id = ''] = /^\s*(\d+)\s+two-maps/m.exec(status.output) ?? []

    tell('9. It is taken back with one write, while the program runs. Its next call is refused.')
    expect(bpftoken('revoke', id), 0, /is revoked/)
    said(await workload.until(/EPERM/))
    await workload.ended

    tell('10. Who did what, and why was it refused?')
    expect(bpftoken('events'), 0, /old-mount[\s\S]*\(maps\)[\s\S]*revoked/)
  } finally {
    workload.kill()
  }
  expect(bpftoken('guard', 'remove'), 0, /^guard removed/)
}

story().catch((error: Error) => {
  console.error(`demo: ${error.message}`)
  process.exitCode = 1
})
