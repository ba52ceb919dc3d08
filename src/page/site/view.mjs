/** Elements of what is shown. Text is set as text, never read as HTML. */
import {
  askerText,
  barsOf,
  healthRows,
  leftText,
  limitsOf,
  placeText,
  recipientText,
  refusalsText,
  shown,
  stateOf,
  treeOf,
} from './model.mjs'

const SVG = 'http://www.w3.org/2000/svg'

export const byId = id => document.getElementById(id)

/** Touches nothing that is so already: a screen reader tells of what changes. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

function make(name, text, attributes = {}) {
  const element = document.createElement(name)
  if (text !== undefined) element.textContent = text
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  return element
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value))
  return element
}

function cell(title, ...parts) {
  const td = make('td', undefined, { 'data-title': title })
  td.append(...parts)
  return td
}

/** What is in the cells of a row. */
const marks = new WeakMap()

/** Rows that are as they were stay, and keep the focus that is in them. */
function setRows(body, rows) {
  const old = new Map([...body.children].map(row => [row.dataset.key, row]))
  let next = body.firstElementChild
  for (const { key, mark, fill } of rows) {
    let row = old.get(key)
    old.delete(key)
    if (row === undefined) {
      row = make('tr')
      row.dataset.key = key
    }
    if (marks.get(row) !== mark) {
      const focused = row.contains(document.activeElement) ? document.activeElement.dataset.act : undefined
      row.replaceChildren(...fill())
      marks.set(row, mark)
      if (focused !== undefined) row.querySelector(`button[data-act="${focused}"]`)?.focus()
    }
    if (row === next) next = next.nextElementSibling
    else body.insertBefore(row, next)
  }
  for (const row of old.values()) row.remove()
}

/** A table, or that there is nothing. */
function setTable(id, rows) {
  const body = byId(id)
  body.closest('.scrolls').hidden = rows.length === 0
  byId(`no-${id}`).hidden = rows.length > 0
  setRows(body, rows)
}

function button(act, label, key) {
  return make('button', label, {
    type: 'button',
    'data-act': act,
    'data-of': key,
    'aria-label': `${label} ${key}`,
    ...(act === 'approve' && { class: 'yes' }),
  })
}

function bar({ share, level }) {
  const svg = draw('svg', {
    class: `bar ${level}`,
    viewBox: '0 0 100 10',
    preserveAspectRatio: 'none',
    'aria-hidden': 'true',
  })
  svg.append(
    draw('rect', { class: 'whole', width: 100, height: 10 }),
    draw('rect', {
      class: 'part',
      width: Math.min(100, Math.max(share > 0 ? 2 : 0, share * 100)),
      height: 10,
    }),
  )
  return svg
}

function limit(one) {
  const line = make('div', undefined, { class: 'limit' })
  line.append(make('span', one.name), bar(one), make('span', one.text))
  return line
}

function loanCells({ loan, depth }, now, acts) {
  const name = make('th', undefined, { scope: 'row', class: `depth-${Math.min(depth, 3)}` })
  name.append(depth > 0 ? `└ ${loan.id}` : loan.id)
  if (depth > 0) name.append(make('small', `of ${loan.spec.parent}`))
  const limits = limitsOf(loan).map(limit)
  const state = stateOf(loan)
  return [
    name,
    cell('For', recipientText(loan), make('small', placeText(loan.spec.place))),
    cell('Policy', shown(loan.policy)),
    cell('Limits', ...(limits.length === 0 ? ['none that are known'] : limits)),
    cell('Left', leftText(loan.record?.expiresAt, now)),
    cell('State', make('span', state.text, { class: `${state.level}-text` })),
    ...(acts ? [cell('Act', button('revoke', 'Revoke', loan.id))] : []),
  ]
}

function requestCells(request, now, acts) {
  return [
    make('th', request.id, { scope: 'row' }),
    cell('Policy', shown(request.policy)),
    cell('Asked by', askerText(request.asker)),
    cell('For', `process ${request.recipient.pid}`, make('small', placeText(request.place))),
    cell('Why', shown(request.comment ?? '')),
    cell('Left', leftText(request.until, now)),
    ...(acts
      ? [cell('Decide', button('approve', 'Approve', request.id), button('deny', 'Deny', request.id))]
      : []),
  ]
}

function eventCells(event) {
  const { last, verdict, point, type, name, reason, uid, pid, task, loan, count } = event
  const level = verdict === 'refused' ? 'bad-text' : 'good-text'
  return [
    make('th', shown(last), { scope: 'row' }),
    cell('Verdict', make('span', shown(verdict), { class: level })),
    cell('What', [point, type, name].filter(Boolean).map(shown).join(' ')),
    cell('Why', shown(reason)),
    cell('Who', `${shown(task)} ${pid}, uid ${uid}`),
    cell('Loan', loan ?? ''),
    cell('Times', String(count)),
  ]
}

function chart(counts) {
  const { most, bars } = barsOf(counts, 600, 100)
  const svg = draw('svg', {
    class: 'chart',
    viewBox: '0 0 600 100',
    preserveAspectRatio: 'none',
    role: 'img',
    'aria-label': `Refusals in each of ${counts.length} minutes, ${most} at most`,
  })
  svg.append(...bars.filter(one => one.height > 0).map(one => draw('rect', one)))
  return svg
}

let charted = ''

/** Shows it all. */
export function render({ role, now, seen }) {
  const acts = role === 'operator'
  const { status, loans, requests, events, refusals, moreLoans, moreEvents } = seen
  for (const head of document.querySelectorAll('th.acts')) head.hidden = !acts
  setText(byId('role'), acts ? 'You can act here.' : 'You can only look.')
  const waits = requests.length === 0 ? '' : `, ${requests.length} to approve`
  const odd = status.concerns.length === 0 ? 'all is well' : `${status.concerns.length} not as it should be`
  setText(byId('summary'), `${moreLoans ? 'more than ' : ''}${loans.length} lent${waits}; ${odd}`)
  byId('more-loans').hidden = !moreLoans
  setTable(
    'requests',
    requests.map(one => rowOf(one.id, requestCells(one, now, acts))),
  )
  setTable(
    'loans',
    treeOf(loans).map(one => rowOf(one.loan.id, loanCells(one, now, acts))),
  )
  setTable(
    'events',
    events.map(one => rowOf(String(one.seq), eventCells(one))),
  )
  setText(byId('refusals-text'), refusalsText(refusals, moreEvents))
  if (charted !== refusals.join()) {
    charted = refusals.join()
    byId('refusals').replaceChildren(chart(refusals))
  }
  byId('concerns').replaceChildren(
    ...status.concerns.map(text => make('li', shown(text), { class: 'bad-text' })),
  )
  byId('health').replaceChildren(
    ...healthRows(status).flatMap(([name, text]) => [make('dt', name), make('dd', text)]),
  )
}

/** What is in the cells says whether the row is another one than before. */
function rowOf(key, cells) {
  return { key, mark: cells.map(({ outerHTML }) => outerHTML).join(''), fill: () => cells }
}

export function tellProblem(text) {
  setText(byId('problem'), text)
  byId('problem').hidden = text === ''
}

export function tellDone(text) {
  setText(byId('done'), text)
}
