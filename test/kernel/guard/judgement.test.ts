/**
 * The guard's judgements, run on this kernel's processor by programs that are no LSM programs: what
 * is live is allowed and counted, what has ended is refused. So that what bench/guard.ts times is
 * the way to a verdict, and not past it.
 */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { bootTimeNs } from '../../../src/guard/clock.ts'
import { bpf_attach_type, bpf_cmd } from '../../../src/uapi/bpf.ts'
import { CAPABILITIES } from '../../../src/uapi/constants.ts'
import { needsTokens } from '../../helpers/machine.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Judgement, type Question } from './judgement.ts'

const COUNT = 8
const MAP_BYTES = 8n
const LIVE = true
const ENDED = false

const needs = needsTokens()
if (needs.skip === undefined) leavesNothing()

describe('the judgement', needs, () => {
  let judgement: Judgement
  let maps: bigint[]
  let programs: bigint[]
  let programFd: number
  let files: { token: bigint; map: bigint }

  before(async () => {
    judgement = await Judgement.open()
    const made = await judgement.makeMaps(COUNT, { type: 'array', entries: 1 })
    const loaded = await judgement.makePrograms(COUNT)
    maps = []
    programs = []
    for (const fd of made.fds) maps.push((await judgement.find(fd)).object)
    for (const fd of loaded.fds) programs.push((await judgement.find(fd)).object)
    programFd = loaded.fds[0]!
    const [token, map] = [await judgement.find(judgement.tokenFd), await judgement.find(made.fds[0]!)]
    files = { token: token.file, map: map.file }
    assert.equal(new Set([...maps, ...programs, token.object]).size, 2 * COUNT + 1, 'objects of their own')
  })
  after(async () => {
    judgement[Symbol.dispose]()
    await judgement.ended()
  })
  beforeEach(() => judgement.revoke(false))

  /** How many of COUNT calls are allowed. */
  async function allowed(hook: string, number = 0, more: Partial<Question> = {}): Promise<number> {
    return (await judgement.judge(hook, { calls: COUNT, number, ...more })).allowed
  }

  function counted() {
    const { maps, map_bytes, programs } = judgement.usage()
    return [maps, map_bytes, programs, judgement.records('maps'), judgement.records('programs')]
  }

  for (const state of [LIVE, ENDED]) {
    const what =
      state === LIVE
        ? 'is allowed, counted and forgotten'
        : 'is refused and leaves no count once it has ended'
    const some = state === LIVE ? COUNT : 0
    const given = (): void => judgement.revoke(state === ENDED)
    const refused = (): bigint => judgement.totals().refused!

    test(`a map under a delegation ${what}`, async () => {
      given()
      judgement.setObjects(maps)
      const before = refused()
      assert.equal(await allowed('map_create'), some)
      assert.deepEqual(counted(), [some, BigInt(some) * MAP_BYTES, 0, some, 0])
      assert.equal(await allowed('map'), COUNT, 'its descriptor')
      assert.equal(await allowed('map_free'), COUNT)
      assert.deepEqual(counted(), [0, 0n, 0, 0, 0])
      assert.equal(refused() - before, BigInt(COUNT - some))
    })

    test(`a program under a delegation ${what}`, async () => {
      given()
      judgement.setObjects(programs)
      const before = refused()
      assert.equal(await allowed('prog_load'), some)
      assert.deepEqual(counted(), [0, 0n, some, 0, some])
      assert.equal(refused() - before, BigInt(COUNT - some))
      if (state === LIVE) assert.equal(await allowed('prog'), COUNT, 'its descriptor')
      assert.equal(await allowed('prog_free'), COUNT)
      assert.deepEqual(counted(), [0, 0n, 0, 0, 0])
    })

    test(`a token ${state === LIVE ? 'serves' : 'serves for nothing once its delegation has ended'}`, async () => {
      given()
      assert.equal(await allowed('token_cmd', bpf_cmd.BPF_MAP_CREATE), some)
      assert.equal(await allowed('token_capable', CAPABILITIES.CAP_BPF), some)
    })

    test(`a program ${state === LIVE ? 'is attached' : 'is not attached once its delegation has ended'}`, async () => {
      judgement.setObjects(programs)
      assert.equal(await allowed('prog_load'), COUNT)
      given()
      // Of the workload's own network: program, device, type.
      judgement.setAttr([programFd, 1, bpf_attach_type.BPF_XDP])
      assert.equal(await allowed('bpf', bpf_cmd.BPF_LINK_CREATE), some)
      assert.equal(await allowed('prog_free'), COUNT)
    })

    test(`a call that is none of its business passes, ${state === LIVE ? 'live' : 'ended'}`, async () => {
      given()
      assert.equal(await allowed('bpf', bpf_cmd.BPF_MAP_LOOKUP_ELEM), COUNT)
    })
  }

  test('a token serves until the end of its delegation, as that was renewed; what has expired stays so', async () => {
    const hour = 3600n * 1_000_000_000n
    const [past, future] = [bootTimeNs() - hour, bootTimeNs() + hour]
    const serves = async () => (await allowed('token_cmd', bpf_cmd.BPF_MAP_CREATE)) === COUNT
    // The clock is looked at once in a tick of the kernel's.
    const tick = () => sleep(20)
    try {
      for (const [end, renewed, expected] of [
        [future, undefined, true],
        [past, future, true],
        [past, past + 1n, false],
        [past, undefined, false],
      ] as const) {
        judgement.endsAt(end, renewed)
        await tick()
        assert.equal(await serves(), expected, `${end} ${renewed}`)
      }
      judgement.renew(future)
      await tick()
      assert.equal(await serves(), false, 'it was refused before')
      judgement.endsAt(past, future)
      assert.equal(await serves(), true, 'the same where nobody was refused')
    } finally {
      judgement.endsAt(future)
    }
  })

  test('a token that is on no record is refused, its neighbour allowed', async () => {
    const { object } = await judgement.find(judgement.tokenFd)
    assert.equal(await allowed('token_cmd', 0, { token: object + 64n }), 0)
    assert.equal(await allowed('token_cmd', 0, { token: object }), COUNT)
  })

  test("a token's file is not opened again, a map's is", async () => {
    judgement.setObjects(new Array(COUNT).fill(files.token))
    assert.equal(await allowed('file_open'), 0)
    judgement.setObjects(new Array(COUNT).fill(files.map))
    assert.equal(await allowed('file_open'), COUNT)
  })

  test('asked after a real call each, it answers the same', async () => {
    const afterRealCalls = true
    judgement.setObjects(maps)
    assert.equal(await allowed('map_create', 0, { afterRealCalls }), COUNT)
    assert.deepEqual(counted(), [COUNT, BigInt(COUNT) * MAP_BYTES, 0, COUNT, 0])
    assert.equal(await allowed('map_free', 0, { afterRealCalls }), COUNT)
    judgement.revoke()
    assert.equal(await allowed('map_create', 0, { afterRealCalls }), 0)
  })
})
