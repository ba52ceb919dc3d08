/**
 * Runs inside a sandbox: for each line of JSON on stdin, does what it names with the token of the
 * bpffs at /sys/fs/bpf, and answers with one line of JSON. The compiled library is used, as by
 * users.
 */
'use strict'
const { spawn, spawnSync } = require('node:child_process')
const { createSocket } = require('node:dgram')
const { once } = require('node:events')
const { readFileSync } = require('node:fs')
const path = require('node:path')
const readline = require('node:readline')

const b = require(path.join(__dirname, 'dist/ebpf/index.js'))
const { socket, setIntOption } = require(path.join(__dirname, 'dist/sys/socket.js'))
const LOOPBACK = 1
const { R0, mov64, exit } = b

const load = (file, ...only) => {
  const spec = b.parseObject(readFileSync(path.join(__dirname, file)), { name: 'borrowed' })
  return b.loadObject(spec, { token: b.defaultToken() ?? null, only })
}

const returning = (value, spec) =>
  b.Program.load({ license: 'GPL', ...spec, insns: [mov64(R0, value), exit()] })

const counterOf = (object, name) => {
  const bss = object.spec.maps.find(map => map.kind === 'bss')
  const globals = new b.GlobalVariables(object.spec.btf.types, bss.valueTypeId)
  return Number(globals.get(object.map('.bss').lookup(0), name))
}

/** What each does gives plain data, or throws; what it owns is disposed of afterwards. */
const DEEDS = {
  /** Events of all processes. */
  perfOfAll(own) {
    const map = own(b.BpfMap.create({ type: 'perf_event_array', keyBytes: 4, valueBytes: 4, maxEntries: 64 }))
    new b.PerfBuffer(map)[Symbol.dispose]()
    return 'opened'
  },
  /** Events of our own main thread, in which the program runs. */
  async perfOfOurselves(own) {
    const map = own(b.BpfMap.create({ type: 'perf_event_array', keyBytes: 4, valueBytes: 4, maxEntries: 64 }))
    const reader = own(new b.PerfBuffer(map, { pid: 0 }))
    const program = own(
      await b.Program.load({
        type: 'socket_filter',
        license: 'GPL',
        insns: [
          b.store('u64', b.R10, -8, 42),
          b.ldMapFd(b.R2, map.fd.number),
          b.ldImm64(b.R3, 0xffff_ffffn),
          b.mov64(b.R4, b.R10),
          b.alu64('+=', b.R4, -8),
          mov64(b.R5, 8),
          b.call('perf_event_output'),
          mov64(R0, -1),
          exit(),
        ],
      }),
    )
    // A datagram to ourselves runs the filter while it is sent.
    const receiver = createSocket('udp4').bind(0, '127.0.0.1')
    await once(receiver, 'listening')
    const { Fd } = require(path.join(__dirname, 'dist/sys/fd.js'))
    const borrowed = new Fd(receiver._handle.fd)
    b.attachSocketFilter(borrowed, program)
    borrowed.release()
    const sender = createSocket('udp4')
    sender.send('x', receiver.address().port, '127.0.0.1')
    await once(receiver, 'message')
    sender.close()
    receiver.close()
    const record = reader.read()
    return record === undefined ? 'nothing' : Number(record.data.readBigUInt64LE(0))
  },
  async usdt(own) {
    const object = own(await load('usdt.bpf.o', 'on_probe'))
    const ring = own(new b.RingBuffer(object.map('hits')))
    const program = path.join(__dirname, 'probed')
    const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] })
    own(
      b.attachUsdt(object, 'on_probe', {
        path: program,
        provider: 'bpftoken',
        name: 'place',
        pid: child.pid,
      }),
    )
    child.stdin.write('x')
    await once(child.stdout, 'data')
    child.stdin.end()
    await once(child, 'exit')
    const args = []
    ring.drain(record => args.push(Number(Buffer.from(record).readBigInt64LE(8))))
    return args
  },
  async uprobe(own) {
    const program = own(await returning(0, { type: 'kprobe' }))
    b.attachUprobe(program, { path: 'libc.so.6', symbol: 'getppid' }).close()
    return 'attached'
  },
  async uprobeMulti(own) {
    const object = own(await load('usdt.bpf.o', 'on_multi'))
    own(b.attachProgram(object, 'on_multi'))
    let parents = 0
    for (let i = 0; i < 5; i++) parents += process.ppid
    return parents > 0 && counterOf(object, 'by_multi') >= 5
  },
  async kprobeMulti(own) {
    const object = own(await load('usdt.bpf.o', 'on_kernel_multi'))
    own(b.attachKprobeMulti(object.program('on_kernel_multi'), { symbols: ['vfs_open', 'vfs_read'] }))
    for (let i = 0; i < 5; i++) readFileSync('/proc/self/stat')
    return counterOf(object, 'by_kernel_multi') >= 5
  },
  async kprobePattern(own) {
    const object = own(await load('usdt.bpf.o', 'on_kernel_multi'))
    b.attachProgram(object, 'on_kernel_multi').close()
    return 'attached'
  },
  async perfEvent(own) {
    const program = own(await returning(0, { type: 'perf_event' }))
    b.attachPerfEvent(program, { event: 'cpuClock', every: { hertz: 10n }, cpu: 0 }).close()
    return 'attached'
  },
  async iterator(own) {
    const object = own(await load('links.bpf.o', 'elements'))
    const map = object.map('numbers')
    map.update(1, Buffer.from('0500000000000000', 'hex'))
    const link = own(b.attachIterator(object.program('elements'), { map }))
    let bytes = 0
    for await (const piece of link.iteratorOutput()) bytes += piece.length
    return bytes
  },
  async tcx(own) {
    const one = own(await returning(-1, { type: 'sched_cls' }))
    const two = own(await returning(-1, { type: 'sched_cls' }))
    const target = { ifindex: LOOPBACK, direction: 'ingress' }
    const link = own(b.attachTcx(one, target))
    const before = own(b.attachTcx(two, { ...target, before: link }))
    return before.info().ifindex
  },
  /** Without a link, and in place of another. */
  async direct(own) {
    const one = own(await returning(-1, { type: 'sched_cls' }))
    const two = own(await returning(-1, { type: 'sched_cls' }))
    const [target, attachType] = [{ ifindex: LOOPBACK }, 'tcx_egress']
    b.attachDirectly(one, target, { attachType })
    b.attachDirectly(two, target, { attachType, replace: one })
    b.detachDirectly(two, target, { attachType })
    return 'attached'
  },
  async netkit(own) {
    const netlink = require(path.join(__dirname, 'dist/sys/netlink.js'))
    const [RTM_NEWLINK, CREATE, IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND] = [16, 0x600, 3, 18, 1]
    const kind = netlink.netlinkAttribute(IFLA_INFO_KIND, Buffer.from('netkit\0'))
    const body = Buffer.concat([
      Buffer.alloc(16),
      netlink.netlinkAttribute(IFLA_IFNAME, Buffer.from('ours0\0')),
      netlink.netlinkAttribute(IFLA_LINKINFO, kind),
    ])
    const route = own(netlink.routeSocket())
    netlink.netlinkRequest(route, 'RTM_NEWLINK', RTM_NEWLINK, CREATE, body, 'ours0')
    const { interfaceIndex } = require(path.join(__dirname, 'dist/sys/socket.js'))
    const program = own(await returning(0, { type: 'sched_cls', expectedAttachType: 'netkit_primary' }))
    const link = own(b.attachNetkit(program, { ifindex: interfaceIndex('ours0'), end: 'primary' }))
    return link.info().attachType
  },
  /** Our own threads, and all tasks of our PID namespace. */
  async tasks(own) {
    const program = own(await load('links.bpf.o', 'tasks')).program('tasks')
    const count = target => own(b.attachIterator(program, target)).readIterator().length / 8
    return [count({ task: { pid: process.pid } }) > 1, count({}) >= count({ task: { pid: process.pid } })]
  },
  async freplace(own) {
    const target = own(await load('links.bpf.o', 'asks')).program('asks')
    const spec = b.parseObject(readFileSync(path.join(__dirname, 'links.bpf.o')), { name: 'borrowed' })
    const programs = { instead: { targetProgram: target } }
    const instead = own(await b.loadObject(spec, { only: ['instead'], programs }))
    own(b.attachTrampoline(instead.program('instead'), { attachType: 0 }))
    return (await target.testRun({ dataIn: new Uint8Array(64) })).returned
  },
  async classicTc(own) {
    const program = own(await returning(0, { type: 'sched_cls' }))
    const filter = own(b.attachTc(program, { ifindex: LOOPBACK, direction: 'ingress' }))
    return filter.handle > 0
  },
  async reuseport(own) {
    const program = own(await returning(0, { type: 'socket_filter' }))
    const one = own(socket(2, 2))
    setIntOption(one, 1, 15, 1)
    b.attachReuseport(one, program)
    b.detachReuseport(one)
    return 'attached'
  },
  query() {
    return b.queryAttached({ ifindex: LOOPBACK }, 'tcx_ingress').programs.length
  },
  stats() {
    b.enableStats().close()
    return 'counting'
  },
  async stream(own) {
    const object = own(await load('links.bpf.o', 'says'))
    const { returned } = await object.program('says').testRun()
    return [returned, object.program('says').readStream('stdout').toString()]
  },
  async info(own) {
    const map = own(b.BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 8, maxEntries: 1 }))
    const program = own(await returning(2, { type: 'xdp' }))
    const link = own(b.attachXdp(program, { ifindex: LOOPBACK, mode: 'skb' }))
    const token = b.defaultToken()
    return [map, program, link]
      .map(one => one.info().id > 0 && b.fdinfo(one).size > 3)
      .concat(b.fdinfo(token).has('allowed_cmds'))
  },
}

async function answer({ deed }) {
  const owned = []
  const own = one => {
    owned.push(one)
    return one
  }
  try {
    return { ok: true, token: b.defaultToken() !== undefined, value: await DEEDS[deed](own) }
  } catch (error) {
    const { code, errnoName, op, hint, message } = error
    return {
      ok: false,
      token: b.defaultToken() !== undefined,
      code,
      errnoName,
      op,
      hint,
      message,
      stack: error.stack,
    }
  } finally {
    for (const one of owned.reverse()) one[Symbol.dispose]()
    b.forgetDefaultToken()
  }
}

void (async () => {
  spawnSync('ip', ['link', 'set', 'lo', 'up'])
  process.stdout.write('ready\n')
  for await (const line of readline.createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`)
})()
