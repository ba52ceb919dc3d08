import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CSP, cookieIn, cookieName, type Refusal, type Wanted, wanted } from '../../../src/page/gate.ts'

const HOST = '127.0.0.1:8123'
const OURS = { host: HOST, origin: `http://${HOST}`, 'sec-fetch-site': 'same-origin' }
const JSON_TYPE = { 'content-type': 'application/json', 'content-length': '2' }

function asked(method: string, url: string, headers: Record<string, string>): Wanted | Refusal {
  const rawHeaders = Object.entries(headers).flat()
  return wanted({ method, url, headers, rawHeaders }, HOST)
}

test('what the page itself asks for is taken', () => {
  assert.deepEqual(asked('GET', '/', { host: HOST, 'sec-fetch-site': 'none' }), {
    what: 'file',
    name: 'index.html',
  })
  assert.deepEqual(asked('GET', '/page.css', OURS), { what: 'file', name: 'page.css' })
  assert.deepEqual(asked('GET', '/look', { host: HOST, 'sec-fetch-site': 'same-origin' }), { what: 'look' })
  assert.deepEqual(asked('GET', '/look', { host: HOST }), { what: 'look' })
  assert.deepEqual(asked('POST', '/act', { ...OURS, ...JSON_TYPE }), { what: 'act' })
  assert.deepEqual(asked('GET', '/enter/abc', { host: HOST }), { what: 'enter', secret: 'abc' })
})

test('another Host, Origin or site is refused, whatever is asked for', () => {
  for (const url of ['/', '/page.mjs', '/look', '/enter/abc']) {
    for (const host of ['localhost:8123', '127.0.0.1', '127.0.0.1:8124', 'evil.example:8123', `${HOST}.`])
      assert.equal(asked('GET', url, { host }), 403, `${url} ${host}`)
    for (const origin of ['null', 'http://evil.example', 'https://127.0.0.1:8123', 'http://127.0.0.1:8124'])
      assert.equal(asked('GET', url, { ...OURS, origin }), 403, `${url} ${origin}`)
    for (const site of ['cross-site', 'same-site', 'other', ''])
      assert.equal(asked('GET', url, { host: HOST, 'sec-fetch-site': site }), 403, `${url} ${site}`)
  }
  assert.equal(asked('GET', '/look', { host: HOST, 'sec-fetch-site': 'none' }), 403)
})

test('what acts says where it comes from, and is JSON', () => {
  const { origin: _, ...noOrigin } = OURS
  const { 'sec-fetch-site': __, ...noSite } = OURS
  assert.equal(asked('POST', '/act', { ...noOrigin, ...JSON_TYPE }), 403)
  assert.equal(asked('POST', '/act', { ...noSite, ...JSON_TYPE }), 403)
  assert.equal(asked('POST', '/act', { ...OURS, ...JSON_TYPE, 'sec-fetch-site': 'none' }), 403)
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'text/json',
    '',
  ])
    assert.equal(asked('POST', '/act', { ...OURS, 'content-type': type }), 415, type)
  assert.equal(asked('POST', '/act', { ...OURS, ...JSON_TYPE, 'content-encoding': 'gzip' }), 415)
  assert.equal(asked('GET', '/act', OURS), 405)
  for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE'])
    assert.equal(asked(method, '/look', OURS), 405, method)
})

test('paths that are not ours, two headers that are to be one, and too many are refused', () => {
  for (const url of [
    '/x',
    '//',
    '/index.html',
    '/../etc/passwd',
    '/%2e%2e/x',
    '/page.mjs?',
    'http://x/',
    '*',
    '/enter/',
  ])
    assert.equal(asked('GET', url, OURS), 403, url)
  assert.equal(asked('GET', `/enter/${'a'.repeat(300)}`, OURS), 403)
  assert.equal(asked('GET', '/look', { ...OURS, 'content-length': '3' }), 400)
  for (const name of ['Host', 'Cookie', 'X-Bpftoken-Key', 'Origin', 'Content-Length'])
    assert.equal(
      wanted(
        {
          method: 'GET',
          url: '/',
          headers: { host: HOST },
          rawHeaders: ['Host', HOST, name, 'a', name.toLowerCase(), 'b'],
        },
        HOST,
      ),
      400,
    )
  const rawHeaders = Array.from({ length: 65 }, (_, i) => [`x-${i}`, 'a']).flat()
  assert.equal(wanted({ method: 'GET', url: '/', headers: { host: HOST }, rawHeaders }, HOST), 431)
})

test('cookieIn() takes one that is alone of its name', () => {
  assert.equal(cookieName(HOST), 'bpftoken-8123')
  assert.equal(cookieName('localhost'), 'bpftoken-80')
  assert.equal(cookieIn('a=b; bpftoken-8123=xyz', 'bpftoken-8123'), 'xyz')
  assert.equal(cookieIn('bpftoken-8123=xyz; bpftoken-8123=abc', 'bpftoken-8123'), undefined)
  assert.equal(cookieIn('bpftoken-81230=xyz', 'bpftoken-8123'), undefined)
  assert.equal(cookieIn(undefined, 'bpftoken-8123'), undefined)
})

test('the policy for content allows nothing inline, nothing from elsewhere and no frame around it', () => {
  assert.equal(
    CSP,
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
  )
})
