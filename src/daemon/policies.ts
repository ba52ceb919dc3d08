/**
 * The daemon's policies: the files of one directory, read anew on demand. Of a file that is not good
 * the policy that was good before holds, and the fault is told until the file is good.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BpftokenError, InputError } from '../errors.ts'
import { policyFromText } from '../lending/policy-text.ts'
import { type Policy, policyToJSON } from '../policy/policy.ts'
import { PolicyIndex } from '../policy/policy-index.ts'
import { assessRisk, type RiskLevel } from '../policy/risk.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { policyDigest } from '../registry/loan-record.ts'
import { readOwned, requireOwn } from './owned-file.ts'

export interface LoadedPolicy {
  readonly policy: Policy
  /** SHA-256 of its terms and whom it names. */
  readonly digest: string
  readonly file: string
  /** As it is written. */
  readonly text: string
  readonly risk: RiskLevel
}

export interface PolicyFault {
  readonly file: string
  readonly message: string
}

/** What the parser takes at most; see src/policy/document.ts. */
const MAX_BYTES = 256 * 1024
const MAX_FILES = 10_000

export class PolicyFiles {
  readonly directory: string
  readonly #vocabulary: Vocabulary
  readonly #owner: number
  #loaded: ReadonlyMap<string, LoadedPolicy> = new Map()
  #index: PolicyIndex | undefined
  #faults: readonly PolicyFault[] = []
  #loadedAt = new Date(0)
  #reading: Promise<void> | undefined
  #next: Promise<void> | undefined

  /** `owner`: the user whose files they must be; tests give their own. */
  constructor(directory: string, vocabulary: Vocabulary, owner = 0) {
    this.directory = directory
    this.#vocabulary = vocabulary
    this.#owner = owner
  }

  get(name: string): LoadedPolicy | undefined {
    return this.#loaded.get(name)
  }

  all(): IterableIterator<LoadedPolicy> {
    return this.#loaded.values()
  }

  /** All of them, for what is asked of all at once. */
  get index(): PolicyIndex {
    this.#index ??= new PolicyIndex([...this.#loaded.values()].map(({ policy }) => policy))
    return this.#index
  }

  get count(): number {
    return this.#loaded.size
  }

  /** Of those files whose policy is not the one that holds, or that have none. */
  get faults(): readonly PolicyFault[] {
    return this.#faults
  }

  get loadedAt(): Date {
    return this.#loadedAt
  }

  /** Reads the files as they are after the call. It does not throw: what is wrong is in `faults`. */
  reload(): Promise<void> {
    this.#next ??= (this.#reading ?? Promise.resolve()).then(() => {
      this.#next = undefined
      this.#reading = this.#read().finally(() => {
        this.#reading = undefined
      })
      return this.#reading
    })
    return this.#next
  }

  async #read(): Promise<void> {
    const faults: PolicyFault[] = []
    const before = new Map([...this.#loaded.values()].map(loaded => [loaded.file, loaded]))
    let files: readonly string[]
    try {
      files = await this.#files()
    } catch (error) {
      // Fail closed, but for what was good before: whoever lives by it goes on.
      this.#faults = [{ file: this.directory, message: textOf(error) }]
      return
    }
    const found: LoadedPolicy[] = []
    for (const file of files) {
      try {
        found.push(await this.#load(file, before.get(file)))
      } catch (error) {
        faults.push({ file, message: textOf(error) })
        const old = before.get(file)
        if (old !== undefined) found.push(old)
      }
    }
    this.#loaded = this.#unambiguous(found, faults)
    this.#index = undefined
    this.#faults = faults
    this.#loadedAt = new Date()
  }

  /** None where there is no directory: a daemon needs no policies to start. */
  async #files(): Promise<string[]> {
    let facts: Awaited<ReturnType<typeof stat>>
    try {
      facts = await stat(this.directory)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    }
    if (!facts.isDirectory()) throw new InputError('it is no directory')
    requireOwn(facts, this.#owner)
    const names = (await readdir(this.directory)).filter(name => name.endsWith('.yaml')).sort()
    if (names.length > MAX_FILES) throw new InputError(`there are more than ${MAX_FILES} files in it`)
    return names.map(name => join(this.directory, name))
  }

  async #load(file: string, before: LoadedPolicy | undefined): Promise<LoadedPolicy> {
    const text = await readOwned(file, { what: 'policy', owner: this.#owner, maxBytes: MAX_BYTES })
    if (text === before?.text) return before
    const policy = await policyFromText(text, file, this.#vocabulary)
    return {
      policy,
      digest: policyDigest(policyToJSON(policy)),
      file,
      text,
      risk: assessRisk(policy, this.#vocabulary).level,
    }
  }

  /** Of several with one name the one that has had it holds; where none has, nobody gets it. */
  #unambiguous(found: readonly LoadedPolicy[], faults: PolicyFault[]): Map<string, LoadedPolicy> {
    const byName = new Map<string, LoadedPolicy[]>()
    for (const loaded of found) {
      const { name } = loaded.policy
      byName.set(name, [...(byName.get(name) ?? []), loaded])
    }
    const clear = new Map<string, LoadedPolicy>()
    for (const [name, alike] of byName) {
      const old = this.#loaded.get(name)
      const holds = alike.length === 1 ? alike[0] : alike.find(one => one.file === old?.file) && old
      if (alike.length > 1)
        for (const { file } of alike)
          faults.push({ file, message: `${alike.length} files have a policy called "${name}"` })
      if (holds !== undefined) clear.set(name, holds)
    }
    return clear
  }
}

function textOf(error: unknown): string {
  if (error instanceof BpftokenError) return error.message
  const { code } = error as NodeJS.ErrnoException
  if (code === undefined) throw error
  return `it cannot be read: ${code}`
}
