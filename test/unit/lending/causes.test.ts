/** The pure halves of src/lending/causes: what facts say, where a machine has other ones. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { closedBpffs, foreignBpffs, opensRoot } from '../../../src/lending/causes/bpffs-place.ts'
import { fullOfDescriptors, limitBehind, limitIn, memlockNote } from '../../../src/lending/causes/limits.ts'
import { loaderIn, loaderText, mappedFile, oldLoader } from '../../../src/lending/causes/loader.ts'
import { lockdownBehind, lockdownIn, modulesText } from '../../../src/lending/causes/security-modules.ts'

const elf = (text: string): Buffer => Buffer.from(`\x7fELF\0${text}\0`, 'latin1')

test('loaderIn() knows a loader by what it holds, and whether it makes tokens', () => {
  const old = loaderIn('libbpf.so.1.1.2', elf('libbpf: elf: x\0v1.1'))
  assert.deepEqual(old, { name: 'libbpf', version: '1.1', file: 'libbpf.so.1.1.2', makesTokens: false })
  assert.equal(loaderText(old!), 'libbpf 1.1 of libbpf.so.1.1.2')
  assert.equal(oldLoader(old)?.cause, 'old-loader')
  const now = loaderIn('x', elf('libbpf: elf: x\0LIBBPF_BPF_TOKEN_PATH'))
  assert.deepEqual([now?.makesTokens, now?.version, oldLoader(now)], [true, undefined, undefined])
  const go = 'github.com/cilium/ebpf/internal/sys.BPF\0dep\tgithub.com/cilium/ebpf\tv0.17.3\th1:'
  assert.equal(loaderText(loaderIn('x', elf(go))!), 'cilium/ebpf 0.17.3 of x')
  assert.equal(loaderIn('x', elf(go))?.makesTokens, false)
  assert.equal(loaderIn('x', elf(`${go}token insufficiently privileged`))?.makesTokens, true)
  const aya = loaderIn('x', elf('/aya-obj-0.2.1/src/obj.rs /aya-0.13.1/src/bpf.rs'))
  assert.deepEqual([aya?.name, aya?.version, aya?.makesTokens], ['aya', '0.13.1', false])
})

test('loaderIn() knows nothing of other programs, nor of what is no program', () => {
  assert.equal(loaderIn('x', elf('hello')), undefined)
  assert.equal(loaderIn('x', Buffer.from('libbpf: elf: in a text')), undefined)
  assert.equal(loaderIn('x', Buffer.alloc(0)), undefined)
  assert.equal(oldLoader(undefined), undefined)
})

test('mappedFile() finds a library in /proc/PID/maps, as `map_files` names it', () => {
  const maps = [
    '00400000-00401000 r--p 00000000 08:01 1 /usr/bin/x',
    '7f0000000000-7f0000001000 r--p 00000000 08:01 2    /usr/lib/libbpf.so.1.1.2',
    '0007f0001000-0007f0002000 r-xp 00000000 08:01 2    /opt/libelf.so.1 (deleted)',
  ].join('\n')
  assert.deepEqual(mappedFile(maps, /^libbpf\.so/), {
    range: '7f0000000000-7f0000001000',
    name: 'libbpf.so.1.1.2',
  })
  assert.deepEqual(mappedFile(maps, /^libelf\.so/), { range: '7f0001000-7f0002000', name: 'libelf.so.1' })
  assert.equal(mappedFile(maps, /^libbcc/), undefined)
  assert.equal(mappedFile('', /./), undefined)
})

const MAP = [{ inside: 0, outside: 100_000, count: 65_536 }]
const who = { uid: 100_000, gids: [100_000, 100_005], uidMap: MAP, gidMap: MAP }
const root = (uid: number, gid: number, mode: number) => ({
  ...{ userNamespace: 'user:[2]', uid, gid, mode },
  way: [],
})

test('opensRoot(): owner, group and others, and a capability over who has a number inside', () => {
  const opens = (uid: number, gid: number, mode: number, capabilities: string[] = []): boolean =>
    opensRoot(root(uid, gid, mode), who, capabilities)
  assert.deepEqual([opens(100_000, 0, 0o700), opens(100_000, 0, 0o077)], [true, false])
  assert.deepEqual([opens(1, 100_005, 0o740), opens(1, 100_005, 0o704)], [true, false])
  assert.deepEqual([opens(1, 1, 0o1777), opens(1, 1, 0o770)], [true, false])
  assert.deepEqual(
    [opens(100_001, 100_001, 0, ['dac_override']), opens(100_001, 1, 0, ['dac_override'])],
    [true, false],
  )
  assert.equal(opens(100_001, 100_001, 0, ['bpf', 'sys_admin']), false)
  assert.match(closedBpffs('/b', root(1, 1, 0o1700), who, [])!.found, /user 1 .* mode 0700/)
  assert.equal(closedBpffs('/b', root(1, 1, 0o777), who, []), undefined)
})

test('foreignBpffs(): of another user namespace; what is not known is no cause', () => {
  assert.equal(foreignBpffs('/b', root(1, 1, 0), 'user:[3]')?.cause, 'foreign-bpffs')
  assert.equal(foreignBpffs('/b', root(1, 1, 0), 'user:[2]'), undefined)
  assert.equal(foreignBpffs('/b', { ...root(1, 1, 0), userNamespace: undefined }, 'user:[3]'), undefined)
})

const LIMITS =
  'Limit                     Soft Limit           Hard Limit           Units\nMax open files            64                   128                  files\nMax locked memory         unlimited            unlimited            bytes\n'

test('limits: the soft one counts, and what is not limited is no cause', () => {
  assert.deepEqual([limitIn(LIMITS, 'Max open files'), limitIn(LIMITS, 'Max locked memory')], [64, undefined])
  const limits = { files: 64, openFiles: 63, memlock: 65_536, memory: undefined }
  assert.equal(fullOfDescriptors(limits), undefined)
  assert.equal(fullOfDescriptors({ ...limits, openFiles: 64 })?.cause, 'descriptor-limit')
  assert.equal(fullOfDescriptors({ ...limits, files: undefined }), undefined)
  assert.equal(limitBehind('ENOMEM', limits)?.cause, 'memory')
  const memory = { cgroup: '/a', max: 100, used: 90 }
  assert.equal(limitBehind('ENOMEM', { ...limits, memory })?.cause, 'memory-limit')
  assert.equal(limitBehind('EPERM', { ...limits, memory }), undefined)
  assert.match(memlockNote(limits)!, /65536 bytes, and plays no part/)
  assert.equal(memlockNote({ ...limits, memlock: undefined }), undefined)
})

test('lockdown is the cause only where it is on and a helper is what is missing', () => {
  assert.equal(lockdownIn('none integrity [confidentiality]'), 'confidentiality')
  assert.equal(lockdownIn(''), undefined)
  const log =
    '1: (85) call bpf_probe_read_kernel#113\nprogram of this type cannot use helper bpf_probe_read_kernel#113'
  assert.equal(lockdownBehind('confidentiality', log)?.cause, 'lockdown')
  assert.match(
    lockdownBehind('confidentiality', 'cannot use helper bpf_probe_write_user#36')!.needed,
    /none$/,
  )
  for (const lockdown of ['none', undefined] as const) assert.equal(lockdownBehind(lockdown, log), undefined)
  assert.equal(lockdownBehind('confidentiality', 'R0 !read_ok'), undefined)
  assert.equal(lockdownBehind('confidentiality', undefined), undefined)
})

test('modulesText(): modules, the label of AppArmor or SELinux, programs of others', () => {
  const programs = [{ id: 7, name: 'deny\n', hook: 'bpf_map' }]
  const text = modulesText({
    names: ['lockdown', 'apparmor', 'bpf'],
    label: 'web (enforce)',
    programs,
    lockdown: 'none',
  })
  assert.equal(
    text,
    'security modules: lockdown, apparmor, bpf; label of the process: web (enforce); BPF programs at hooks of bpf(2): deny\\u{a} (7) at bpf_map',
  )
  assert.equal(
    modulesText({ names: [], label: undefined, programs: [], lockdown: undefined }),
    'security modules: not told',
  )
})
