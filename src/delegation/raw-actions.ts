/** Actions in the executor's own words: one of our actions becomes one or more raw actions. */
import { NONE } from '../sys/executor/layout.ts'
import type { RawAction } from '../sys/executor/message.ts'
import { MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID } from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import type { Action } from './actions.ts'

const ATTRIBUTES = { nosuid: MOUNT_ATTR_NOSUID, nodev: MOUNT_ATTR_NODEV, noexec: MOUNT_ATTR_NOEXEC }
/** What the slot's number stands for in LOOK: see SLOTS. */
const MOUNT_SLOT = 6

/** The raw actions for the executor, and for each the action that it comes from. */
export function translate(actions: readonly Action[]): { raw: RawAction[]; sources: Action[] } {
  const raw: RawAction[] = []
  const sources: Action[] = []
  for (const action of actions)
    for (const one of rawActions(action)) {
      raw.push(one)
      sources.push(action)
    }
  return { raw, sources }
}

function rawActions(action: Action): RawAction[] {
  switch (action.do) {
    case 'enterRoot':
      // A symbolic link in its place is followed: it is the runtime's own.
      return [{ op: 'ENTER_ROOT', text: [`${action.path}/.`] }]
    case 'makeDirectory':
      return [{ op: 'MAKE_DIRECTORY', text: [action.path] }]
    case 'openDirectory':
      return [{ op: 'OPEN_DIRECTORY', text: [action.path] }]
    case 'openContext':
      return [{ op: 'OPEN_CONTEXT', text: [action.type] }]
    case 'refuseOccupied':
      return [{ op: 'REFUSE_OCCUPIED' }]
    case 'takeContext':
      return [{ op: 'TAKE_CONTEXT', number: action.fd }]
    case 'markDelegatable':
      return [{ op: 'SET_FLAG', text: ['delegate'], number: ERRNO['EINVAL']! }]
    case 'proveContext':
      return [{ op: 'PROVE_CONTEXT', number: action.mapped ?? NONE, more: action.unmapped ?? NONE }]
    case 'setOption':
      return [{ op: 'SET_OPTION', text: [action.key, action.value] }]
    case 'createSuperblock':
      return [{ op: 'CREATE' }]
    case 'makeMount':
      return [
        {
          op: 'MAKE_MOUNT',
          number: action.attributes.reduce((flags, name) => flags | ATTRIBUTES[name], 0),
        },
      ]
    case 'refuseMoved':
      return [{ op: 'REFUSE_MOVED' }]
    case 'attachMount':
      return [{ op: 'ATTACH' }]
    case 'reachMount':
      return [
        { op: 'OPEN_REACHED', text: [action.path] },
        { op: 'REFUSE_UNREACHED' },
        { op: 'LOOK', number: MOUNT_SLOT },
      ]
    case 'confirm':
    case 'pause':
      return [{ op: 'PAUSE' }]
  }
}
