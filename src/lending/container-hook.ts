/** The program that container runtimes call while they make a container: native/hook. */
export { hookPath as containerHook } from '../sys/prebuilt.ts'
