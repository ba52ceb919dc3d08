/** What each step of a scenario came to. */
import { z } from 'zod'

export const check = z.strictObject({
  name: z.string().describe('The test, in the words of the kernel.'),
  needed: z.string(),
  found: z.string(),
  passed: z.boolean(),
  source: z.string().describe('The function of the kernel that makes it.'),
})

export const simulated = z.strictObject({
  scenario: z.string(),
  met: z.boolean().describe('Whether all came out that the scenario expects.'),
  steps: z.array(
    z.strictObject({
      line: z.int().describe('Where the step stands in the file.'),
      as: z.string().optional(),
      do: z.string(),
      outcome: z.string().describe('`ok`, or an errno.'),
      why: z.string().optional(),
      guard: z.strictObject({ point: z.string(), reason: z.string() }).optional(),
      expect: z.string().optional(),
      met: z.boolean().optional(),
      checks: z.array(check).describe('In the order in which the kernel makes them.'),
    }),
  ),
})
