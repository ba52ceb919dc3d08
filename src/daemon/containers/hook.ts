/** A runtime is about to start a container: whether it may, and with a loan if it asks for one. */
import type { RouteRequest } from '../../api/routes.ts'
import { NotSupportedError } from '../../errors.ts'
import { asking } from '../lend.ts'
import type { Parts } from '../parts.ts'
import { requireRoot } from '../records.ts'
import type { Answered, Call } from '../service.ts'

/** `POST /v1/hooks/oci` */
export async function ociHookRoute(
  _parts: Parts,
  { asker }: Call,
  { body }: RouteRequest<'ociHook'>,
): Promise<Answered<'ociHook'>> {
  requireRoot(await asking(asker))
  if (body.state.annotations === undefined) return { status: 200, body: { preflight: [], notes: [] } }
  throw new NotSupportedError('Containers cannot be lent to by annotation yet')
}
