/**
 * Types of the kernel's modules, as descriptors: what a program calls, reads or attaches to there is
 * named by a descriptor and an id. Each module is opened once for the loading of one object.
 */
import { ConflictError, NotFoundError, NotSupportedError, SyscallError } from '../../errors.ts'
import { type BtfObject, opensTypesByToken } from '../btf/object.ts'
import { isModuleAsRead, openModuleBtf } from '../kernel/btf.ts'
import { Owned } from '../owned.ts'
import type { Token } from '../token.ts'

export class ModuleTypes implements Disposable {
  readonly #token: Token | null
  readonly #owned = new Owned()
  readonly #opened = new Map<string, BtfObject>()

  constructor(token: Token | null) {
    this.#token = token
  }

  /**
   * Stays open until this is disposed of. `newest`: types that were loaded after the module.
   * NotFoundError: the module is gone. ConflictError: another build of it is there by now. EPERM names the missing right or capability.
   * NotSupportedError: under a token, on a kernel before 6.15.
   */
  open(name: string, newest: BtfObject | undefined): BtfObject {
    const known = this.#opened.get(name)
    if (known !== undefined) return known
    const opened = this.#open(name, newest?.info().id)
    if (opened === undefined)
      throw new NotFoundError(`The types of module "${name}" cannot be found by their id`, {
        context: { module: name },
        hint: 'Look whether the module is still loaded',
      })
    this.#owned.add(opened)
    // Fail closed: the ids that were looked up would be of other functions. While it is open, the
    // kernel refuses to load with the types of a module that has gone.
    if (!isModuleAsRead(name, opened))
      throw new ConflictError(`Module "${name}" was exchanged while the object was loaded`, {
        context: { module: name },
        hint: 'Load the object again',
      })
    this.#opened.set(name, opened)
    return opened
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }

  #open(name: string, newestId: number | undefined): BtfObject | undefined {
    try {
      return openModuleBtf(name, this.#token, newestId)
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error
      const context = { module: name }
      if (this.#token !== null && !opensTypesByToken())
        throw new NotSupportedError(
          `This kernel opens no types under a token, and the program needs those of module "${name}"`,
          { context, cause: error, hint: 'Run Linux 6.15 or newer, or load the program as root' },
        )
      const { call, op, errno, errnoName, hint } = error
      throw new SyscallError(
        { call, op, errno, errnoName, object: `the types of module "${name}"` },
        { context: { ...error.context, ...context }, hint, cause: error },
      )
    }
  }
}
