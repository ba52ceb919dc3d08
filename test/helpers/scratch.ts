/** A temporary directory that every user may read. To dispose of it removes it. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export class Scratch implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'bpftoken-test-'))

  constructor() {
    chmodSync(this.path, 0o755)
  }

  /** Writes a file and gives its path. */
  write(name: string, content: string | Uint8Array, mode = 0o644): string {
    const path = join(this.path, name)
    writeFileSync(path, content, { mode })
    return path
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}
