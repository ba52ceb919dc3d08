/**
 * An object's types in the kernel. Where it refuses them, or no right was lent for it, most objects
 * are loaded without; names and source lines are then missing in what tools say.
 */
import { SyscallError } from '../../errors.ts'
import { BtfObject } from '../btf/object.ts'
import { BTF_FEATURES, type BtfFeature, sanitizeBtf } from '../btf/sanitize.ts'
import { Features } from '../kernel/features.ts'
import type { Token } from '../token.ts'

export type LoadedTypes =
  /** There are some. Whoever asked disposes of it. */
  | { readonly object: BtfObject; readonly refused: undefined }
  /** There are none, or the kernel did not take them. */
  | { readonly object: undefined; readonly refused: SyscallError | undefined }

/** Throws only what is no answer of the kernel. */
export async function loadTypes(bytes: Uint8Array | undefined, token: Token | null): Promise<LoadedTypes> {
  if (bytes === undefined) return { object: undefined, refused: undefined }
  try {
    return { object: await loadBtf(bytes, token), refused: undefined }
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    return { object: undefined, refused: error }
  }
}

/** A kernel that does not know some kind of type gets a simpler one instead. */
async function loadBtf(bytes: Uint8Array, token: Token | null): Promise<BtfObject> {
  try {
    return await BtfObject.load(bytes, { token })
  } catch (error) {
    // Without the right or the memory, a simpler one would fail too.
    if (!(error instanceof SyscallError) || error.errnoName !== 'EINVAL') throw error
    const lacking = await lackingIn(new Features(token))
    if (lacking.size === 0) throw error
    return await BtfObject.load(sanitizeBtf(bytes, lacking), { token })
  }
}

async function lackingIn(features: Features): Promise<Set<BtfFeature>> {
  const lacking = new Set<BtfFeature>()
  for (const feature of BTF_FEATURES) if ((await features.has(feature)) === false) lacking.add(feature)
  return lacking
}

/** What to tell people where the object is loaded without. */
export function typesWarning({ message, hint }: SyscallError): string {
  const why = hint === undefined ? message : `${message}. ${hint}`
  return `The kernel does not have the object's types, so names and source lines are missing: ${why}`
}

/** A failure that comes of types that were refused before, told as their refusal. */
export function refusedTypes(refused: SyscallError, neededFor: string, cause: unknown): SyscallError {
  const { call, op, errno, errnoName, context, hint } = refused
  const object = context['object']
  return new SyscallError(
    { call, op, errno, errnoName, ...(typeof object === 'string' ? { object } : {}) },
    {
      cause,
      context,
      hint: `${hint === undefined ? '' : `${hint}. `}The types are needed for ${neededFor}`,
    },
  )
}
