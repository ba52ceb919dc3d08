/**
 * What a person does with the page, in a browser, with the daemon itself: looks, revokes with a
 * second thought, approves and denies, sees what changes by itself, by mouse and by keyboard. The
 * browser may complain of nothing, and its content security policy must be in force.
 *
 *   make test-page
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Browser, Page as Tab } from 'playwright-core'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CSP } from '../../src/page/gate.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { asUser, Front, USER } from '../helpers/ordinary-user.ts'
import { Page } from '../helpers/page.ts'
import { Scratch } from '../helpers/scratch.ts'
import { needsChromium, startBrowser } from './browser.ts'

const PATIENCE_MS = 60_000
/** As text: what is here is of no browser. */
const INJECT = `(() => {
  const script = document.createElement('script')
  script.textContent = 'document.title = "injected"'
  document.body.append(script)
  return document.title
})()`
const residueBefore = snapshot()
after(async () => assert.deepEqual(await residue(residueBefore), []))

describe('the page in a browser', { ...needsTokens(), ...needsChromium() }, () => {
  const scratch = new Scratch()
  let front: Front
  let daemon: Bpftokend
  let page: Page
  let browser: Browser
  let tab: Tab
  const complaints: string[] = []
  const programs: ChildProcess[] = []

  before(async () => {
    front = new Front()
    daemon = new Bpftokend(scratch.path)
    const example = readFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), 'utf8')
    for (const [name, more] of [
      ['dev', ''],
      ['asked', '\n  approval: required'],
    ] as const)
      writeFileSync(
        join(daemon.policies, `${name}.yaml`),
        example
          .replace(/^( *name:).*$/m, `$1 ${name}`)
          .replace(/^ *network:.*\n/m, '')
          .replace(
            /^spec:$/m,
            `spec:\n  network: host\n  guard: optional\n  subjects: [{ user: ${USER} }]${more}`,
          ),
        { mode: 0o644 },
      )
    await daemon.ready()
    page = await Page.start(daemon.socket, '--operator')
    browser = await startBrowser(scratch.path)
    const context = await browser.newContext({ colorScheme: 'light', viewport: { width: 1100, height: 900 } })
    context.setDefaultTimeout(PATIENCE_MS)
    tab = await context.newPage()
    tab.on('console', message => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
    })
    tab.on('pageerror', error => complaints.push(String(error)))
    tab.on('requestfailed', request => {
      // A reload gives up what was asked for before.
      const why = request.failure()?.errorText
      if (why !== 'net::ERR_ABORTED') complaints.push(`${request.url()}: ${why}`)
    })
  })
  after(async () => {
    await browser?.close()
    await page?.[Symbol.asyncDispose]()
    for (const program of programs) program.kill('SIGKILL')
    await daemon[Symbol.asyncDispose]()
    front[Symbol.dispose]()
    scratch[Symbol.dispose]()
  })

  /** Starts a program of a user's, with a loan under that policy. */
  const start = (policy: string): ChildProcess => {
    const child = spawn(...asUser(USER, front.words(policy, '--', 'sh', '-c', 'echo ran; exec sleep 600')), {
      env: { ...process.env, BPFTOKEN_SOCKET: daemon.socket },
      cwd: '/',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    programs.push(child)
    return child
  }
  const row = (text: RegExp | string) => tab.locator('tbody tr', { hasText: text })
  const rowOf = (policy: string) =>
    tab.locator('tbody tr').filter({ has: tab.getByRole('cell', { name: policy, exact: true }) })
  const gone = (text: RegExp | string) => row(text).first().waitFor({ state: 'detached' })
  /** The name of the loan, or of the request, once one under that policy is shown. */
  const shown = async (policy: string, what: 'loan' | 'request'): Promise<string> => {
    const name = rowOf(policy).getByRole('rowheader', { name: new RegExp(`${what}-`) })
    return (await name.first().textContent()) ?? ''
  }

  test('the address opens it once, with its policy in force, and nothing is lent', async () => {
    const answer = await tab.goto(page.operator!)
    assert.equal(answer?.status(), 200)
    assert.equal(answer.headers()['content-security-policy'], CSP)
    await tab.locator('#health').locator('dt').first().waitFor()
    assert.equal(new URL(tab.url()).hash, '', 'the key is not left in the address')
    // What the policy forbids is not done, and the browser says so.
    const injected = await tab.evaluate(INJECT)
    assert.equal(injected, 'bpftoken')
    await eventually(() => complaints.length > 0, 'the browser does not say what it refused')
    for (const complaint of complaints.splice(0)) assert.match(complaint, /Content Security Policy/)
    const again = await (await browser.newContext()).newPage()
    const refused = again.waitForResponse(page.operator!)
    await again.goto(page.operator!).catch(() => {})
    assert.equal((await refused).status(), 403, 'the address is good once')
    await again.context().close()
  })

  test('a loan comes by itself; a second thought leaves it; revoke takes it back', async () => {
    const child = start('dev')
    await once(child.stdout!, 'data')
    const loan = await shown('dev', 'loan')
    await tab.getByRole('button', { name: `Revoke ${loan}` }).click()
    const dialog = tab.getByRole('dialog')
    assert.match((await dialog.textContent()) ?? '', new RegExp(loan))
    await dialog.getByRole('button', { name: 'Leave it' }).click()
    await dialog.waitFor({ state: 'hidden' })
    assert.ok(await row(loan).first().isVisible())
    // By keyboard: the button, then the one that says what is done.
    await tab.getByRole('button', { name: `Revoke ${loan}` }).focus()
    await tab.keyboard.press('Enter')
    await dialog.waitFor()
    await dialog.getByRole('button', { name: 'Revoke' }).focus()
    await tab.keyboard.press('Enter')
    await gone(loan)
    assert.notEqual(await tab.locator('#done').textContent(), '')
  })

  test('what waits is approved, and denied', async () => {
    const approved = start('asked')
    const request = await shown('asked', 'request')
    if (process.env['BPFTOKEN_TEST_SCREENSHOT'] !== undefined) {
      await tab.screenshot({ path: process.env['BPFTOKEN_TEST_SCREENSHOT'] })
    }
    const ran = once(approved.stdout!, 'data')
    await tab.getByRole('button', { name: `Approve ${request}` }).click()
    await tab.getByRole('dialog').getByRole('button', { name: 'Approve' }).click()
    assert.match(String((await ran)[0]), /^ran/)
    await gone(request)
    const denied = start('asked')
    const ended = once(denied, 'exit')
    const name = await shown('asked', 'request')
    await tab.getByRole('button', { name: `Deny ${name}` }).click()
    await tab.getByRole('dialog').getByRole('button', { name: 'Deny' }).click()
    assert.equal((await ended)[0], 3)
    await gone(name)
  })

  test('it fits a narrow window, and is dark where one likes it so', async () => {
    await tab.setViewportSize({ width: 360, height: 740 })
    assert.ok(await tab.evaluate('document.documentElement.scrollWidth <= innerWidth'))
    const background = () => tab.evaluate('getComputedStyle(document.body).backgroundColor')
    const light = await background()
    await tab.emulateMedia({ colorScheme: 'dark' })
    assert.notEqual(await background(), light)
  })

  test('a reload keeps it; when the page is ended it says so, and the browser has complained of nothing', async () => {
    await tab.reload()
    await tab.locator('#health').locator('dt').first().waitFor()
    assert.deepEqual(complaints, [])
    await page.end()
    await tab.locator('#problem', { hasText: 'Nobody answers' }).waitFor()
  })
})
