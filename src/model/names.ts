/** Names of maps and programs, as the kernel takes them. */
import type { Judge, Rule } from './judge.ts'

/** bpf_obj_name_cpy(): letters, digits, `_` and `.`, and room for the end in 16 bytes. */
export function nameFails(judge: Judge, rule: Rule, name: string | undefined): boolean {
  const fits = name === undefined || (name.length < 16 && /^[A-Za-z0-9_.]*$/.test(name))
  return judge.fails(rule, fits, name === undefined || name === '' ? 'no name' : JSON.stringify(name))
}
