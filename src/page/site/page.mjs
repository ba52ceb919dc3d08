/** Asks for what is shown while somebody looks, and does what buttons say. */
import { shown, sureText } from './model.mjs'
import { byId, render, tellDone, tellProblem } from './view.mjs'

const PERIOD_MS = 2000
/** What the session's key is kept as: for this tab, and for this port alone. */
const KEY = 'bpftoken-key'
const GONE = 'This address is not good any more. Start the page again, and open the new address.'

function takeKey() {
  const fresh = location.hash.slice(1)
  if (/^[A-Za-z0-9_-]{43}$/.test(fresh)) {
    sessionStorage.setItem(KEY, fresh)
    history.replaceState(null, '', '/')
  }
  return sessionStorage.getItem(KEY)
}

const key = takeKey()
let last
let timer
let over = key === null

async function ask(path, options = {}) {
  const headers = { 'X-Bpftoken-Key': key, ...options.headers }
  const answer = await fetch(path, { ...options, headers, cache: 'no-store', redirect: 'error' })
  if (answer.status === 403) {
    over = true
    throw new Error(GONE)
  }
  const document = await answer.json().catch(() => ({}))
  const { problem } = document.seen ?? document
  if (!answer.ok)
    throw new Error(problem === undefined ? `The page answers ${answer.status}.` : shown(problem))
  return document
}

async function look() {
  clearTimeout(timer)
  if (over || document.hidden) return
  try {
    last = await ask('/look')
    render(last)
    tellProblem('')
  } catch (error) {
    // What was seen before stays, with what is wrong.
    tellProblem(error instanceof TypeError ? 'Nobody answers: has the page been ended?' : error.message)
  }
  if (!over) timer = setTimeout(look, PERIOD_MS)
}

async function act(what, of) {
  const row = [...last.seen.requests, ...last.seen.loans].find(({ id }) => id === of)
  if (row === undefined || !(await sure(what, row))) return
  try {
    const { done } = await ask('/act', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ what, of }),
    })
    tellDone(shown(done))
  } catch (error) {
    tellDone(error.message)
  }
  await look()
}

/** Names what would be done: whoever presses a key twice has read it once. */
function sure(what, row) {
  const dialog = byId('sure')
  byId('sure-text').textContent = sureText(what, row)
  byId('sure-yes').textContent = { approve: 'Approve', deny: 'Deny', revoke: 'Revoke' }[what]
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise(resolve => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true })
  })
}

document.addEventListener('click', event => {
  const { act: what, of } = event.target.closest?.('button[data-act]')?.dataset ?? {}
  if (what !== undefined) void act(what, of)
})
document.addEventListener('visibilitychange', () => void look())
if (over) tellProblem(GONE)
void look()
