/** Schemas of what stands in many documents: numbers, masks, times, risk. Loads zod. */
import { z } from 'zod'
import { CAPABILITIES } from '../policy/policy.ts'
import { RISK_LEVELS } from '../policy/risk.ts'

export const strict = z.strictObject
export const text = z.string()
export const texts = z.array(text)
export const flag = z.boolean()
/** Not negative, and exact as a number of JSON. */
export const count = z.int().min(0)
export const id = z.int().min(1).max(0xffff_ffff)
/** Of users and groups: (uid_t)-1 is none. */
export const account = z.int().min(0).max(0xffff_fffe)
export const pid = z.int().min(0).max(0x7fff_ffff)
export const size = z
  .union([count, z.string().regex(/^[1-9][0-9]*$/)])
  .describe('A number up to 2^53-1; a larger one is decimal text')
export const time = z.iso.datetime().describe('RFC 3339, in UTC')
export const mask = z
  .string()
  .regex(/^0x[0-9a-f]{1,16}$/)
  .describe('64 bits, hexadecimal')

const domains = <T extends z.ZodType>(of: T) => strict({ cmds: of, maps: of, progs: of, attachs: of })
export const masks = domains(mask)
/** In the kernel's words. */
export const words = domains(texts)
export const domain = z.enum(['cmds', 'maps', 'progs', 'attachs'])
export const capability = z.enum(CAPABILITIES)

export const level = z.enum(RISK_LEVELS)
export const risk = strict({
  level,
  items: z.array(
    strict({
      domain: z.enum([...domain.options, 'capabilities', 'network']),
      word: text,
      level,
      reason: text,
    }),
  ),
})
