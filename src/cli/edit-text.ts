/** A change of a policy in words: `spec.rights.maps: add hash`. Pure. */
import type { PolicyEdit } from '../policy/edit.ts'

export function editText({ path, value }: PolicyEdit): string {
  return path.startsWith('spec.rights.') ? `${path}: add ${value}` : `${path}: ${value}`
}
