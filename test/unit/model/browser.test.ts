/** The bundle of docs/simulator runs where there is nothing of Node, and says what the model says. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { createContext, runInContext } from 'node:vm'
import { simulatorBundle } from '../../../scripts/simulator.ts'
import { parseScenario } from '../../../src/model/scenario/parse.ts'
import { playScenario } from '../../../src/model/scenario/play.ts'

const FOLDER = join(__dirname, '../../../examples/scenarios')

test('all scenarios come out in a browser as they do here', () => {
  const context = createContext({})
  assert.equal(
    runInContext('typeof process + typeof require + typeof Buffer', context),
    'undefinedundefinedundefined',
  )
  runInContext(simulatorBundle(), context)
  const files = readdirSync(FOLDER).filter(name => name.endsWith('.yaml'))
  assert.ok(files.length >= 14)
  for (const name of files) {
    const text = readFileSync(join(FOLDER, name), 'utf8')
    const json = runInContext(`JSON.stringify(bpftokenModel.simulate(${JSON.stringify(text)}))`, context)
    const result = JSON.parse(json)
    assert.equal(result.ok, true, `${name}: ${result.message}`)
    assert.deepEqual(
      result.lines.map((line: { outcome: string; why: string }) => [line.outcome, line.why]),
      playScenario(parseScenario(name, text)).map(({ outcome, why }) => [outcome, why]),
      name,
    )
  }
})

test('the page’s own scenario comes out as it expects, and a broken one is told with its line', () => {
  const context = createContext({})
  runInContext(simulatorBundle(), context)
  const page = readFileSync(join(__dirname, '../../../docs/simulator/index.html'), 'utf8')
  const text = /<textarea[^>]*>([\s\S]*?)<\/textarea>/.exec(page)![1]!
  const play = (scenario: string) =>
    JSON.parse(runInContext(`JSON.stringify(bpftokenModel.simulate(${JSON.stringify(scenario)}))`, context))
  const good = play(text)
  assert.ok(good.ok)
  assert.deepEqual(
    good.lines.filter((line: { met?: boolean }) => line.met === false),
    [],
  )
  const bad = play(text.replace('type: hash', 'kind: hash'))
  assert.equal(bad.ok, false)
  assert.match(bad.message, /scenario:\d+:\d+/)
})
