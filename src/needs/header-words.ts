/**
 * The words of our headers. A plan is written in them, since it is for any kernel; a bit that is
 * newer is written as a number. Pure.
 */
import { type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_type } from '../uapi/bpf.ts'

let words: Vocabulary | undefined

export function headerVocabulary(): Vocabulary {
  words ??= vocabularyFrom({ bpf_cmd, bpf_map_type, bpf_prog_type, bpf_attach_type })
  return words
}
