/** Pure: what is changed of a container that asks, and whether the runtime has taken it. */
import { create } from '@bufbuild/protobuf'
import { type Container, type ContainerAdjustment, ContainerAdjustmentSchema } from './messages/nri_pb.ts'
import type { Annotations } from './request.ts'

/** Where the bpffs is mounted, and where loaders look by themselves. */
export const MOUNT_PATH = '/sys/fs/bpf'
/** By which libbpf is told where; it says so if it cannot make a token there, instead of going on without. */
const TOKEN_VARIABLE = 'LIBBPF_BPF_TOKEN_PATH'

export interface HookProgram {
  /** As the runtime sees it. */
  readonly path: string
  /** After its name. */
  readonly args: readonly string[]
  /** The runtime ends it then, and gives the container up. */
  readonly timeoutSeconds: number
}

/**
 * The hook before the container's first program runs, the variable unless the container has one of
 * its own, and what was asked for: the runtime does not pass a pod's annotations on, and who looks
 * at the container's configuration is to see it.
 */
export function adjustmentFor(
  container: Pick<Container, 'env'>,
  asked: Annotations,
  hook: HookProgram,
): ContainerAdjustment {
  const has = container.env.some(one => one.startsWith(`${TOKEN_VARIABLE}=`))
  const name = hook.path.slice(hook.path.lastIndexOf('/') + 1)
  return create(ContainerAdjustmentSchema, {
    annotations: { ...asked },
    env: has ? [] : [{ key: TOKEN_VARIABLE, value: MOUNT_PATH }],
    hooks: {
      createRuntime: [
        {
          path: hook.path,
          args: [name, ...hook.args],
          timeout: { value: BigInt(hook.timeoutSeconds) },
        },
      ],
    },
  })
}

/** Whether a container that was made has the hook. */
export function hasHook(container: Pick<Container, 'hooks'>, hook: HookProgram): boolean {
  return container.hooks?.createRuntime.some(({ path }) => path === hook.path) === true
}
