/** What tasks of user namespaces may attach, by all that is lent there. */
import { INITIAL, type UserNamespace } from '../task.ts'
import type { Actor } from './actor.ts'
import type { Delegation } from './delegation.ts'
import { PERMISSIVE, type Rules, rulesOf } from './terms.ts'

/** What tasks of a user namespace, and of those below it, may attach. */
interface NamespaceRules {
  delegation: Delegation
  readonly enforced: { ownNetwork: number; revocable: number }
  readonly watched: { ownNetwork: number; revocable: number }
}

export class Namespaces {
  readonly #namespaces = new Map<UserNamespace, NamespaceRules>()

  /** The rules of the caller's user namespace and of those above it; undefined: there are none. */
  rulesAround({
    task,
  }: Actor):
    | { readonly delegation: Delegation; readonly enforced: Rules; readonly watched: Rules }
    | undefined {
    let nearest: Delegation | undefined
    const all = { enforced: { ownNetwork: 0, revocable: 0 }, watched: { ownNetwork: 0, revocable: 0 } }
    for (
      let at: UserNamespace | undefined = task.userNamespace;
      at !== undefined && at !== INITIAL;
      at = at.parent
    ) {
      const found = this.#namespaces.get(at)
      if (found === undefined) continue
      nearest ??= found.delegation
      for (const group of ['enforced', 'watched'] as const) {
        all[group].ownNetwork |= found[group].ownNetwork
        all[group].revocable |= found[group].revocable
      }
    }
    if (nearest === undefined) return undefined
    const rules = (group: 'enforced' | 'watched'): Rules => ({
      ownNetwork: all[group].ownNetwork !== 0,
      revocable: all[group].revocable !== 0,
    })
    return { delegation: nearest, enforced: rules('enforced'), watched: rules('watched') }
  }

  /** From now on the rules of a delegation hold in its user namespace. */
  rule(made: Delegation): void {
    const none = { ownNetwork: 0, revocable: 0 }
    const rules = this.#namespaces.get(made.userNamespace!)
    if (rules === undefined)
      this.#namespaces.set(made.userNamespace!, {
        delegation: made,
        enforced: { ...none },
        watched: { ...none },
      })
    else rules.delegation = made
    made.isRuled = true
    this.#countRules(made, 1)
  }

  readonly unrule = (of: Delegation): void => {
    if (!of.isRuled) return
    of.isRuled = false
    this.#countRules(of, -1)
  }

  #countRules({ terms, userNamespace }: Delegation, change: 1 | -1): void {
    const found = this.#namespaces.get(userNamespace!)
    if (found === undefined) return
    const group = terms.mode === PERMISSIVE ? found.watched : found.enforced
    const { ownNetwork, revocable } = rulesOf(terms)
    if (ownNetwork) group.ownNetwork += change
    if (revocable) group.revocable += change
  }
}
