/** What plugins of runtimes announce, and what is known by that: for root alone. */
import type { RouteRequest } from '../../api/routes.ts'
import { asking } from '../lend.ts'
import type { Parts } from '../parts.ts'
import { requireRoot } from '../records.ts'
import type { Answered, Call } from '../service.ts'

/** `POST /v1/containers` */
export async function announceContainersRoute(
  { containers, clock }: Parts,
  { asker }: Call,
  { body }: RouteRequest<'announceContainers'>,
): Promise<Answered<'announceContainers'>> {
  requireRoot(await asking(asker))
  containers.announce(body, clock.wall())
  return { status: 200, body: { known: containers.size } }
}

/** `GET /v1/containers` */
export async function listContainersRoute(
  { containers }: Parts,
  { asker }: Call,
): Promise<Answered<'listContainers'>> {
  requireRoot(await asking(asker))
  return { status: 200, body: { containers: [...containers.all()].map(one => ({ ...one })) } }
}
