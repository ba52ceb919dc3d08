/** bpftoken schema: the form of each JSON document, as JSON Schema. */
import { DOCUMENT_NAMES, DOCUMENTS, type DocumentName } from '../../api/names.ts'
import { EXIT } from '../../errors.ts'
import { columns, print, printJson } from '../output.ts'

export async function schema(name: DocumentName | undefined, options: { json?: boolean }): Promise<number> {
  if (name !== undefined) printJson((await import('../../api/schema.ts')).jsonSchemaOf(name))
  else if (options.json === true) printJson(DOCUMENTS)
  else print(...columns(DOCUMENT_NAMES.map(one => [one, DOCUMENTS[one]])))
  return EXIT.ok
}
