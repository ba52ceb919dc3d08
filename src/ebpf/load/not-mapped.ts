/** What is said of an arena that was disposed of, by all that reads there. */
import { NotFoundError } from '../../errors.ts'

export function notMapped(): NotFoundError {
  return new NotFoundError('The arena is not mapped any more', {
    hint: 'Dispose of the object when its arena is not used any more',
  })
}
