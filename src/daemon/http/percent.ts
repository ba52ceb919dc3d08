/** Percent-encoding in addresses. Pure. */
import { RequestError } from '../../errors.ts'

/** The text, which must be encoded UTF-8. RequestError: it is not. */
export function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new RequestError(400, 'the address has a percent-encoding that is none of UTF-8')
  }
}
