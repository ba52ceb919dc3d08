/**
 * Runs inside a sandbox: for each line of JSON on stdin, loads an object with the token of the
 * bpffs at /sys/fs/bpf, such as it is at that moment, or with none, and answers with one line of
 * JSON. The compiled library is used, as by users.
 */
'use strict'
const { execFileSync, spawnSync } = require('node:child_process')
const { createSocket } = require('node:dgram')
const { once } = require('node:events')
const { readFileSync } = require('node:fs')
const path = require('node:path')
const readline = require('node:readline')

const DIST = path.join(__dirname, 'dist')
const { GlobalVariables } = require(path.join(DIST, 'ebpf/object/global-variables.js'))
const { loadObject } = require(path.join(DIST, 'ebpf/load/object.js'))
const { attachProgram } = require(path.join(DIST, 'ebpf/attach/section.js'))
const { RingBuffer } = require(path.join(DIST, 'ebpf/ringbuf.js'))
const { parseObject } = require(path.join(DIST, 'ebpf/object/spec.js'))
const { cgroupRoot } = require(path.join(DIST, 'lending/recipient/cgroup.js'))
const { ethernet, ipv4, packet, tcp } = require(path.join(DIST, 'ebpf/test-run/packet.js'))
const { runProgram } = require(path.join(DIST, 'ebpf/test-run/run-program.js'))
const { findToken } = require(path.join(DIST, 'ebpf/token.js'))

const BPFFS = '/sys/fs/bpf'
const specs = new Map()

function specOf(file) {
  const known = specs.get(file)
  if (known !== undefined) return known
  specs.clear()
  const spec = parseObject(readFileSync(file), { name: path.basename(file, '.o') })
  specs.set(file, spec)
  return spec
}

/**
 * Attaches to the loopback device, lets `packets` datagrams through, and says what the programs
 * saw.
 */
async function exercise(object, packets) {
  const links = [
    attachProgram(object, 'count', { kind: 'xdp', device: 'lo', mode: 'skb' }),
    attachProgram(object, 'ingress', { kind: 'tcx', device: 'lo', direction: 'ingress' }),
    attachProgram(object, 'egress', { kind: 'cgroup', path: cgroupRoot() }),
  ]
  const globals = new GlobalVariables(
    object.spec.btf.types,
    object.spec.maps.find(({ name }) => name === '.bss').valueTypeId,
  )
  const global = name => Number(globals.get(object.map('.bss').lookup(0), name))
  const ring = new RingBuffer(object.map('events'))
  try {
    await datagrams(packets)
    const events = []
    for (let record = ring.read(); record !== undefined; record = ring.read())
      events.push(...new Uint32Array(record.buffer.slice(record.byteOffset, record.byteOffset + 8)))
    const word = (map, off) => Number(new DataView(object.map(map).lookup(0).buffer).getBigUint64(off, true))
    const seen = { ingressBytes: global('ingress_bytes'), cgroupPackets: global('cgroup_packets') }
    return {
      ...seen,
      events,
      inner: word('first', 0) + word('second', 0),
      links: links.map(link => link.info().type),
    }
  } finally {
    ring[Symbol.dispose]()
    for (const link of links) link.close()
  }
}

async function datagrams(count) {
  const receiver = createSocket('udp4').bind(0, '127.0.0.1')
  await once(receiver, 'listening')
  const sender = createSocket('udp4')
  for (let i = 0; i < count; i++) {
    const arrived = once(receiver, 'message')
    sender.send('x'.repeat(50), receiver.address().port, '127.0.0.1')
    await arrived
  }
  sender.close()
  receiver.close()
}

/** The same by an unmodified bpftool, which pins all that it made; the pins go with the bpffs. */
function answerOfBpftool(file) {
  const args = ['prog', 'loadall', file, `${BPFFS}/programs`, 'pinmaps', `${BPFFS}/maps`]
  const { status, stderr } = spawnSync(path.join(__dirname, 'bpftool'), args, { encoding: 'utf8' })
  return { ok: status === 0, message: stderr.trim() }
}

async function answer({ file, only, packets, attach, bpftool, run, fresh }) {
  // Of root in a mount namespace of its own: what another object has pinned is not there.
  if (fresh === true) execFileSync('sh', ['-c', `umount ${BPFFS} && mount -t bpf bpf ${BPFFS}`])
  if (bpftool === true) return answerOfBpftool(file)
  let token
  let object
  try {
    token = findToken({ environment: {} })
    object = await loadObject(specOf(file), {
      token: token ?? null,
      pinRoot: BPFFS,
      ...(only ? { only } : {}),
    })
    const seen = packets === undefined ? {} : await exercise(object, packets)
    if (attach !== undefined)
      attachProgram(object, attach.program, { kind: 'cgroup', path: attach.cgroup }).close()
    const ran =
      run === undefined
        ? undefined
        : await runProgram(object.program(run), { packet: packet(ethernet(), ipv4(), tcp()), repeat: 10 })
    return {
      ...seen,
      ...(ran === undefined ? {} : { verdict: ran.verdict }),
      ok: true,
      token: token !== undefined,
      programs: object.programs.size,
      maps: object.maps.size,
    }
  } catch (error) {
    const { errnoName, hint, message } = error
    return { ok: false, token: token !== undefined, message, errnoName, hint }
  } finally {
    object?.[Symbol.dispose]()
    token?.close()
  }
}

void (async () => {
  process.stdout.write('ready\n')
  for await (const line of readline.createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`)
})()
