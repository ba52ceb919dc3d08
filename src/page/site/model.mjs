/**
 * What is shown of what the daemon says, without a document. All of its text may be a stranger's:
 * it is cut and made visible here, and put into elements as text alone.
 */

/** As in src/ebpf/printable.ts: what has no form of its own, or turns the order of others. */
const HIDDEN =
  /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\ufffd\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/gu
const MAX_CHARS = 200

/** The text, visible to the last character, and not endless. */
export function shown(text) {
  const all = String(text ?? '')
  const cut = all.length > MAX_CHARS ? `${all.slice(0, MAX_CHARS)}…` : all
  return cut.replace(HIDDEN, char => `\\u{${char.codePointAt(0).toString(16)}}`)
}

/** `1h59m`: the two largest units. */
export function leftText(until, nowMs) {
  if (until === undefined) return 'no end'
  let left = Math.floor((Date.parse(until) - nowMs) / 1000)
  if (!(left > 0)) return 'over'
  const parts = []
  for (const [unit, seconds] of [
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ]) {
    const count = Math.floor(left / seconds)
    left -= count * seconds
    if (count > 0) parts.push(`${count}${unit}`)
  }
  return parts.slice(0, 2).join('')
}

export function sizeText(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

/** What is limited, with how much of it lives. */
export function limitsOf({ status }) {
  const { live, limits } = status ?? {}
  if (live === undefined || limits === undefined) return []
  return ['tokens', 'programs', 'maps', 'mapBytes'].flatMap(name => {
    if (limits[name] === undefined) return []
    const [has, most] = [Number(live[name]), Number(limits[name])]
    const share = most === 0 ? 1 : has / most
    const text = name === 'mapBytes' ? `${sizeText(has)} of ${sizeText(most)}` : `${has} of ${most}`
    return [{ name: name === 'mapBytes' ? 'map memory' : name, share, text, level: levelOf(share) }]
  })
}

function levelOf(share) {
  return share >= 0.9 ? 'bad' : share >= 0.7 ? 'odd' : 'good'
}

/** Each loan after the one that it is derived from, with how deep it lies. */
export function treeOf(loans) {
  const ids = new Set(loans.map(({ id }) => id))
  const below = new Map()
  for (const loan of loans) {
    const parent = ids.has(loan.spec.parent) ? loan.spec.parent : undefined
    below.set(parent, [...(below.get(parent) ?? []), loan])
  }
  const rows = []
  const seen = new Set()
  const add = (loan, depth) => {
    if (seen.has(loan.id)) return
    seen.add(loan.id)
    rows.push({ loan, depth })
    for (const one of below.get(loan.id) ?? []) add(one, depth + 1)
  }
  for (const loan of below.get(undefined) ?? []) add(loan, 0)
  // Whatever is said, nothing that is lent is left out.
  for (const loan of loans) add(loan, 0)
  return rows
}

export function recipientText({ record }) {
  const { container, unit, pid, ownerUid } = record?.recipient ?? {}
  if (record === undefined) return 'being made'
  const who = container ?? unit
  return who === undefined ? `process ${pid}, uid ${ownerUid}` : shown(who)
}

export function placeText(place) {
  return 'path' in place ? shown(place.path) : `context ${place.contextFd}`
}

export function askerText({ uid, executable }) {
  return executable === undefined ? `uid ${uid}` : `uid ${uid}, ${shown(executable)}`
}

export function stateOf({ state, status }) {
  const drift = status?.drift ?? []
  if (state !== 'live') return { text: state, level: 'odd' }
  if (status?.mounted === false) return { text: 'not mounted', level: 'bad' }
  if (drift.length > 0) return { text: `drift: ${drift.map(shown).join(', ')}`, level: 'bad' }
  return { text: 'live', level: 'good' }
}

/** The bars of a chart that is so wide and high, and the highest of them. */
export function barsOf(counts, width, height) {
  const most = Math.max(0, ...counts)
  const step = width / counts.length
  const bars = counts.map((count, i) => {
    const tall = count === 0 ? 0 : Math.max(1, (count / most) * height)
    return { x: i * step, y: height - tall, width: step * 0.8, height: tall }
  })
  return { most, bars }
}

export function refusalsText(counts, more) {
  const all = counts.reduce((sum, count) => sum + count, 0)
  if (all === 0) return 'nothing'
  return `${more ? 'more than ' : ''}${all} times; in the worst minute ${Math.max(...counts)}`
}

/** What is asked before something is done. */
export function sureText(what, row) {
  if (what === 'revoke')
    return `Take ${row.id} back, with what is derived from it? It is lent to ${recipientText(row)} under the policy ${shown(row.policy)}.`
  const verb = what === 'approve' ? 'Lend' : 'Do not lend'
  return `${verb} what ${row.id} asks for? ${askerText(row.asker)} asks for the policy ${shown(row.policy)}, for process ${row.recipient.pid} at ${placeText(row.place)}.`
}

export function healthRows({ version, pid, startedAt, guard, policies, loans, requests, registry, audit }) {
  return [
    ['daemon', `${shown(version)}, process ${pid}, since ${shown(startedAt)}`],
    [
      'guard',
      guard.installed
        ? `installed${guard.mode ? `, ${shown(guard.mode)}` : ''}`
        : `none: ${shown(guard.why)}`,
    ],
    ['policies', `${policies.loaded}, read ${shown(policies.loadedAt)}`],
    ...policies.faults.map(({ file, message }) => [shown(file), shown(message)]),
    ['loans', `${loans.live} live, ${loans.ended} ended, ${loans.adopted} adopted`],
    ['requests', `${requests.waiting} waiting`],
    [
      'registry',
      registry.fault === undefined && registry.writable ? 'writable' : shown(registry.fault ?? 'read-only'),
    ],
    ['audit', `${audit.records} records`],
  ]
}
