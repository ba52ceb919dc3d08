/** One datagram over loopback, for programs that see packets. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'

/** Sends one, and returns when it has arrived. */
export async function datagram(): Promise<void> {
  const receiver = createSocket('udp4').bind(0, '127.0.0.1')
  await once(receiver, 'listening')
  const arrived = once(receiver, 'message')
  const sender = createSocket('udp4')
  sender.send('x', receiver.address().port, '127.0.0.1')
  await arrived
  sender.close()
  receiver.close()
}
