/** The two ways to read mountinfo say the same, whatever a mount point is called. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseMountInfo, parsePlaces } from '../../../src/sys/mountinfo.ts'

/** As the kernel writes a path. */
function escaped(path: string): string {
  return path.replace(/[ \t\n\\]/g, char => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`)
}

const line = (mountId: number, path: string): string =>
  `${mountId} 21 0:${mountId} / ${escaped(path)} rw,relatime shared:1 - tmpfs none rw\n`

test('parsePlaces() reads what parseMountInfo() reads, whatever a mount point is called', () => {
  const name = fc.string({
    unit: fc.constantFrom(...'a \t\n\r\\#-\v\f\u0085\u00a0\u2028\u2029\ufeff', '1 1 '),
  })
  fc.assert(
    fc.property(fc.array(name), names => {
      const paths = names.map(one => `/${one}`)
      const text = paths.map((path, i) => line(i + 100, path)).join('')
      const places = parsePlaces(text)
      assert.deepEqual(
        places.map(place => place.path),
        paths,
      )
      const whole = parseMountInfo(text)
      assert.deepEqual(
        places,
        whole.map(({ mountId, parentId, path }) => ({ mountId, parentId, path })),
      )
    }),
  )
})
