/** What is printed of drop-ins of systemd. Loads zod. */
import { z } from 'zod'
import { count, strict, text, texts } from './basics.ts'

export const systemdDropin = strict({
  unit: text,
  file: text,
  systemd: count.describe('Its version, for which the file is'),
  way: z
    .enum(['native', 'run'])
    .describe('systemd delegates by itself, or a program of ours does, which starts that of the unit'),
  policy: text,
  text: text.describe('What the file holds'),
  changed: z.boolean().describe('The file was another one, or there was none'),
  next: texts.describe('What is still to be done, for people'),
})

export const systemdDropinRemoved = strict({ unit: text, file: text, removed: z.boolean(), next: texts })
