import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostOf, parseHost, parseListen } from '../../../src/page/listen.ts'

test('parseListen() takes the loopback and Unix sockets', () => {
  assert.deepEqual(parseListen('127.0.0.1:0'), { host: '127.0.0.1', port: 0 })
  assert.deepEqual(parseListen('127.9.8.7:65535'), { host: '127.9.8.7', port: 65535 })
  assert.deepEqual(parseListen('[::1]:80'), { host: '::1', port: 80 })
  assert.deepEqual(parseListen('unix:/run/x.sock'), { path: '/run/x.sock' })
})

test('parseListen() refuses what other machines could reach, and what is no place', () => {
  for (const text of [
    ...['0.0.0.0:80', '[::]:80', '10.0.0.1:80', '128.0.0.1:80', '[::ffff:10.0.0.1]:80', 'localhost:80'],
    ...['127.0.0.1', '127.0.0.1:65536', '127.0.0.1:01', '127.0.0.1:-1', '127.1:80', '127.0.0.256:80', ''],
    ...['unix:', 'unix:x', 'unix:/a\0b', `unix:/${'x'.repeat(107)}`],
  ])
    assert.throws(() => parseListen(text), { code: 'BPFTOKEN_INPUT' }, text)
})

test('parseHost() takes names of this machine alone', () => {
  for (const text of ['localhost', 'localhost:8080', 'a.localhost:1', '127.0.0.1:80', '[::1]:80'])
    assert.equal(parseHost(text), text)
  for (const text of [
    'example.org',
    'localhost.org',
    'notlocalhost',
    'localhost:0',
    'localhost:65536',
    'a\nb',
    '',
  ])
    assert.throws(() => parseHost(text), { code: 'BPFTOKEN_INPUT' }, text)
})

test('hostOf() is what a browser says', () => {
  assert.equal(hostOf({ host: '127.0.0.1', port: 8080 }), '127.0.0.1:8080')
  assert.equal(hostOf({ host: '::1', port: 8080 }), '[::1]:8080')
  assert.equal(hostOf({ host: '127.0.0.1', port: 80 }), '127.0.0.1')
})
