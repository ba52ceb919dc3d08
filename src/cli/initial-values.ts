/** What `--set NAME=VALUE` says of an object's global variables, before they are loaded. */
import type { TypedValue } from '../ebpf/btf/typed-value.ts'
import type { Initial } from '../ebpf/load/initial-data.ts'
import { GlobalVariables } from '../ebpf/object/global-variables.ts'
import type { ObjectSpec } from '../ebpf/object/spec.ts'
import { UsageError } from '../errors.ts'

/** Sorted into constants and others. Whether a name is there at all, the loader says. */
export function initialValues(
  spec: ObjectSpec,
  settings: readonly string[],
): { constants: Initial; variables: Initial } {
  const changeable = new Set(
    spec.maps
      .filter(({ kind, valueTypeId }) => (kind === 'data' || kind === 'bss') && valueTypeId !== 0)
      .flatMap(({ valueTypeId }) => [...new GlobalVariables(spec.btf!.types, valueTypeId).all.keys()]),
  )
  const all = settings.map(parseSetting)
  const those = (isVariable: boolean): Initial =>
    Object.fromEntries(all.filter(([name]) => changeable.has(name) === isVariable))
  return { constants: those(false), variables: those(true) }
}

/** `NAME=VALUE`. Whole numbers of any size, in decimal or hexadecimal. UsageError: it is not that. */
export function parseSetting(text: string): [name: string, value: TypedValue] {
  const sep = text.indexOf('=')
  if (sep < 1)
    throw new UsageError(`--set takes NAME=VALUE, not ${JSON.stringify(text)}`, {
      hint: 'For example --set port=80',
    })
  return [text.slice(0, sep), parseValue(text.slice(sep + 1))]
}

function parseValue(text: string): TypedValue {
  if (/^-?(?:0x[0-9a-f]+|\d+)$/i.test(text))
    return text.startsWith('-') ? -BigInt(text.slice(1)) : BigInt(text)
  if (!/^(?:[{["]|true$|false$|-?\d+\.\d+)/.test(text)) return text
  try {
    return JSON.parse(text) as TypedValue
  } catch (error) {
    throw new UsageError(`${JSON.stringify(text)} is no JSON`, {
      cause: error,
      hint: 'Write structs as {"member": 1}, arrays as [1, 2], other text as it is',
    })
  }
}
