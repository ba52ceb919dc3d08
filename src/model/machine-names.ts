/** The kernels that the model knows without asking one. A name is a series, and means its newest. */
export const MACHINE_NAMES = ['6.1', '6.12', '6.18', '7.3'] as const
export type MachineName = (typeof MACHINE_NAMES)[number]

export const NEWEST_MACHINE: MachineName = '7.3'
