/**
 * Who is detached, who is killed and what is said of the rest, with a kernel that answers as each
 * case has it.
 */
import assert from 'node:assert/strict'
import { afterEach, describe, test } from 'node:test'
import { detach, type LiveView } from '../../../src/guard/detach.ts'
import { delegationId } from '../../../src/guard/id.ts'
import type { Holder, LiveLink, LiveMap, LiveProgram } from '../../../src/guard/inventory.ts'
import { type Native, use } from '../../../src/sys/native.ts'
import { bpf_attr_get_id, bpf_attr_link_detach, bpf_cmd } from '../../../src/uapi/bpf.ts'
import { ERRNO } from '../../../src/uapi/errno.ts'

const DELEGATION = delegationId(7)
const DELEGATIONS = new Set([DELEGATION])
/** Descriptors are the ids and process numbers that they stand for, and more. */
const LINK_FD = 1000
const PID_FD = 2000
const EBADF = -9

const link = (id: number, type: LiveLink['type'] = 'xdp'): LiveLink => ({
  delegation: DELEGATION,
  id,
  type,
  programId: id + 100,
  name: 'prog',
})
const holder = (pid: number, links: number[], more: Partial<Holder> = {}): Holder => ({
  ...{ pid, task: 'task', within: true, programs: [], maps: [], links, token: false },
  ...more,
})

/** What lives; a kernel on which links are detached and processes killed. */
class Machine implements LiveView {
  links = (): LiveLink[] => this.liveLinks
  maps = (): LiveMap[] => []
  programs: LiveProgram[] = []
  liveLinks: LiveLink[] = []
  liveHolders: Holder[] = []
  /**
   * Of the user namespace, who hold nothing that can be seen. With the last of them goes what they
   * have hidden.
   */
  liveMembers: Holder[] = []
  /** -errno of detaching a link, by id. */
  readonly detachErrno = new Map<number, number>()
  readonly detached: number[] = []
  readonly killed: number[] = []
  readonly opened = new Set<number>()
  /** What happens when a process is opened. */
  onOpen: (pid: number) => void = () => {}

  objects = () => ({ programs: this.programs, maps: this.maps(), links: this.links() })
  holders = (): Holder[] => this.liveHolders
  members = (): Holder[] => this.liveMembers

  /** A killed process lets go of its links. */
  kill(pid: number): number {
    const member = this.liveMembers.find(one => one.pid === pid)
    if (member !== undefined) {
      this.killed.push(pid)
      this.liveMembers = this.liveMembers.filter(one => one !== member)
      if (this.liveMembers.length === 0) this.liveLinks = []
      return 0
    }
    const found = this.liveHolders.find(one => one.pid === pid)
    if (found === undefined) return -ERRNO['ESRCH']!
    this.killed.push(pid)
    this.liveHolders = this.liveHolders.filter(one => one !== found)
    this.liveLinks = this.liveLinks.filter(
      ({ id }) => !found.links.includes(id) || this.liveHolders.some(({ links }) => links.includes(id)),
    )
    return 0
  }

  install(): void {
    const open = (fd: number): number => {
      this.opened.add(fd)
      return fd
    }
    use({
      bpf: (cmd: number, attr: Uint8Array) => {
        if (cmd === bpf_cmd.BPF_LINK_GET_FD_BY_ID)
          return open(LINK_FD + bpf_attr_get_id.decode(attr).start_id!)
        assert.equal(cmd, bpf_cmd.BPF_LINK_DETACH)
        const id = bpf_attr_link_detach.decode(attr).link_fd! - LINK_FD
        this.detached.push(id)
        return this.detachErrno.get(id) ?? 0
      },
      pidfd_open: (pid: number) => {
        this.onOpen(pid)
        return open(PID_FD + pid)
      },
      pidfd_send_signal: (pidfd: number, signal: number) => {
        assert.equal(signal, 9)
        return this.kill(pidfd - PID_FD)
      },
      close: (fd: number) => (this.opened.delete(fd) ? 0 : EBADF),
    } as unknown as Native)
  }
}

function machine(links: LiveLink[], holders: Holder[]): Machine {
  const made = new Machine()
  made.liveLinks = links
  made.liveHolders = holders
  made.install()
  return made
}

afterEach(() => use(undefined))

describe('detach()', () => {
  test('detaches what it can, and says of the rest why not', async () => {
    const lab = machine([link(1), link(2, 'tracing')], [holder(50, [1, 2])])
    lab.detachErrno.set(2, -ERRNO['EOPNOTSUPP']!)
    const result = await detach(lab, DELEGATIONS)
    assert.deepEqual(result.detached, [{ kind: 'link', ...link(1) }])
    assert.deepEqual(result.stays, [{ kind: 'link', ...link(2, 'tracing'), errnoName: 'EOPNOTSUPP' }])
    assert.deepEqual([result.killed, lab.killed], [[], []])
    assert.deepEqual(result.holders, [holder(50, [1, 2])])
    assert.deepEqual([...lab.opened], [], 'descriptors are left open')
  })

  test('a link that went by itself is no failure', async () => {
    const lab = machine([link(1)], [])
    lab.detachErrno.set(1, -ERRNO['ENOENT']!)
    const result = await detach(lab, DELEGATIONS)
    assert.deepEqual(result.stays, [])
  })

  test('what is attached meanwhile is detached, too', async () => {
    const lab = machine([link(1)], [])
    let looks = 0
    lab.links = () => (looks++ === 0 ? [link(1)] : [link(1), link(2)])
    const result = await detach(lab, DELEGATIONS)
    assert.deepEqual(lab.detached, [1, 2])
    assert.equal(result.detached.length, 2)
  })

  test('who goes on attaching is told of, and not followed for ever', async () => {
    const lab = machine([], [])
    let last = 0
    lab.links = () => [link(++last)]
    const result = await detach(lab, DELEGATIONS)
    assert.deepEqual(
      result.stays.map(({ id, errnoName }) => [id, errnoName]),
      [[last, 'EAGAIN']],
    )
  })
})

describe('detach() with kill', () => {
  test('kills who holds something, and then nothing stays', async () => {
    const lab = machine([link(2, 'tracing')], [holder(50, [2]), holder(51, [], { token: true })])
    lab.detachErrno.set(2, -ERRNO['EOPNOTSUPP']!)
    const result = await detach(lab, DELEGATIONS, { kill: true })
    assert.deepEqual(lab.killed, [50, 51])
    assert.deepEqual(result.killed, [holder(50, [2]), holder(51, [], { token: true })])
    assert.deepEqual([result.stays, result.holders], [[], []])
    assert.deepEqual(result.left, { programs: [], maps: [], links: [] })
    assert.deepEqual([...lab.opened], [], 'descriptors are left open')
  })

  test('leaves alone who is outside of the delegation, and says what stays', async () => {
    const lab = machine([link(2, 'tracing')], [holder(1, [2], { within: false }), holder(50, [2])])
    lab.detachErrno.set(2, -ERRNO['EOPNOTSUPP']!)
    const result = await detach(lab, DELEGATIONS, { kill: true, killTimeoutMs: 200 })
    assert.deepEqual(lab.killed, [50])
    assert.deepEqual(
      result.stays.map(({ id }) => id),
      [2],
    )
    assert.deepEqual(
      result.holders.map(({ pid }) => pid),
      [1],
    )
  })

  test('what nobody has open is gone with the others of the user namespace', async () => {
    const lab = machine([link(2, 'tracing')], [holder(50, [])])
    lab.liveMembers = [holder(60, []), holder(61, []), holder(1, []), holder(process.pid, [])]
    const [us, init] = [lab.liveMembers[3]!, lab.liveMembers[2]!]
    lab.detachErrno.set(2, -ERRNO['EOPNOTSUPP']!)
    const { kill } = lab
    lab.kill = pid => {
      const result = kill.call(lab, pid)
      if (lab.liveMembers.every(one => one === us || one === init)) lab.liveLinks = []
      return result
    }
    const result = await detach(lab, DELEGATIONS, { kill: true })
    assert.deepEqual(lab.killed, [50, 60, 61])
    assert.deepEqual([result.stays, result.left.links], [[], []])
  })

  test('what somebody outside has open is left, with the others of the user namespace', async () => {
    const lab = machine([link(1)], [holder(70, [1], { within: false })])
    lab.liveMembers = [holder(60, [])]
    await detach(lab, DELEGATIONS, { kill: true, killTimeoutMs: 200 })
    assert.deepEqual(lab.killed, [])
  })

  test('never kills us, nor process 1, wherever they are', async () => {
    const lab = machine([link(1)], [holder(1, [1]), holder(process.pid, [1])])
    await detach(lab, DELEGATIONS, { kill: true, killTimeoutMs: 200 })
    assert.deepEqual(lab.killed, [])
  })

  test('kills who came after the first look', async () => {
    const lab = machine([link(1)], [holder(50, [1])])
    const kill = lab.kill.bind(lab)
    lab.kill = pid => {
      // It has had a child.
      if (pid === 50) lab.liveHolders.push(holder(60, [1]))
      return kill(pid)
    }
    await detach(lab, DELEGATIONS, { kill: true })
    assert.deepEqual(lab.killed, [50, 60])
  })

  test('does not kill a process that has the number of one that held something', async () => {
    const lab = machine([link(1)], [holder(50, [1])])
    // It ends before we hold it, and what we hold is a stranger.
    lab.onOpen = () => {
      lab.liveHolders = []
      lab.liveLinks = []
    }
    lab.kill = () => assert.fail('a stranger is killed')
    const result = await detach(lab, DELEGATIONS, { kill: true })
    assert.deepEqual(result.killed, [])
  })
})
