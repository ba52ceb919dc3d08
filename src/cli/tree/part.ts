/**
 * A part of the tree: the commands of one topic, which need no other part. All parts together are
 * ../tree.ts.
 */
import type { Command } from '../command.ts'

/** What a command does: it gets its arguments and, last, its options, and gives its exit status. */
export type Run = (...args: never[]) => number | Promise<number>

/** The action of a command, for commander; what it loads is loaded when it is chosen. */
export type Act = (load: () => Promise<Run>) => (...given: unknown[]) => Promise<void>

/** Adds its commands to the root. */
export type Part = (root: Command, act: Act) => void
