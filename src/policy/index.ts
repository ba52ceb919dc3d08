/**
 * `bpftoken/policy`: the pure policy core. Same input, same answer, on any machine.
 *
 * Start with `vocabularyFrom` (the running kernel's enums as data) and `parsePolicy`. This door
 * loads zod and yaml; within the package import the single modules, and parse.ts lazily.
 */
export { attenuate, isWithin, meet, type Removal } from './attenuate.ts'
export {
  type Allowed,
  decide,
  type EntryTrace,
  type FieldTrace,
  type PolicyTrace,
  type Refused,
  type Request,
  type Verdict,
} from './decide.ts'
export { type GlobKind, globFault, globMatches } from './glob.ts'
export { type GuardNeed, guardNeeds } from './guard-needs.ts'
export { type LintFinding, lintPolicy } from './lint.ts'
export type { LocatedPolicy, Position, Positions } from './located.ts'
export {
  describeMask,
  hexMask,
  type MaskResult,
  type MountValueResult,
  maskOf,
  mountOption,
  parseMountValue,
  type WordIssue,
  wordsOf,
} from './mask-text.ts'
export { type ParseOptions, parseLocatedPolicy, parsePolicy } from './parse.ts'
export {
  type AllowList,
  CAPABILITIES,
  type Capability,
  EVENTS,
  type Events,
  type Limits,
  type Policy,
  type PolicyJSON,
  policyFromJSON,
  policyToJSON,
  type Rights,
  type Terms,
} from './policy.ts'
export { PolicyIndex } from './policy-index.ts'
export { formatDuration, formatSize, parseDuration, parseSize } from './quantity.ts'
export {
  assessRisk,
  compareRisk,
  RISK_LEVELS,
  type RiskAssessment,
  type RiskItem,
  type RiskLevel,
} from './risk.ts'
export {
  API_VERSION,
  KIND,
  type PolicyDocument,
  type PolicyDocumentInput,
  policyJSONSchema,
} from './schema.ts'
export {
  type Fact,
  type Identity,
  namesIn,
  type Subject,
  type SubjectFacts,
  unitOfCgroup,
} from './subject.ts'
export { verdictLines } from './verdict-text.ts'
export {
  ANY_MASK,
  bitsOf,
  hasBit,
  hasWord,
  type KernelEnums,
  MASK_DOMAINS,
  type MaskDomain,
  type Masks,
  type Vocabulary,
  vocabularyFrom,
} from './vocabulary.ts'
