/**
 * Calls of bpf(2) that a real process makes and the kernel answers, each explained while the process
 * lives.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import type { Guard } from '../../../src/guard/guard.ts'
import { type Explanation, explainCall } from '../../../src/lending/explain.ts'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { explainOther } from '../../../src/lending/other-call.ts'
import { explainSeen, isExplained, lookAt } from '../../../src/lending/seen-refusal.ts'
import { type Situation, situationOfThread } from '../../../src/lending/situation.ts'
import type { SeenCall } from '../../../src/record/call.ts'
import { Recorder } from '../../../src/record/recorder.ts'
import { CLI } from '../../helpers/cli.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Scratch } from '../../helpers/scratch.ts'

export const NR_BPF = process.arch === 'arm64' ? 280 : 321

/**
 * Perl: a token of /sys/fs/bpf if there is one, and calls with it. `stage` tells its number and
 * waits for a line, and so it does at its end.
 */
export const PERL = `
use Fcntl; $| = 1; our ($t, $with, $log) = (0, 0, "\\0" x 65536);
sub take_token { my $at = $_[0] || "/sys/fs/bpf";
  ($t, $with) = (0, 0);
  if (sysopen D, $at, 0200000) { $t = syscall ${NR_BPF}, 36, pack("LL", 0, fileno D), 8; close D }
  $t = 0 if $t < 0; $with = $t ? 65536 : 0;
}
sub stage { print "stage $$\\n"; <STDIN>; }
my $code = pack("Q2", 0xb7, 0x95); my $gpl = "GPL\\0";
sub at { unpack "Q", pack "P", $_[0] }
sub map_create { my ($type, $key, $value, $entries, $flags) = @_; syscall ${NR_BPF}, 0, pack("L5 x56 l x16", $type, $key, $value, $entries, $flags | $with, $t), 96 }
sub prog_of { my ($type, $attach, $flags, $insns) = @_;
  my $attr = pack("LLQQ L2 Q L2 x16 L L x72 l x20", $type, length($insns) / 8, at($insns), at($gpl), 1, length $log, at($log), 0, $flags | $with, 0, $attach, $t);
  syscall ${NR_BPF}, 5, $attr, 168 }
sub prog_load { my ($type, $attach, $flags, $bad) = @_; prog_of($type, $attach, $flags, $bad ? pack("Q", 0x95) : $code) }
sub btf_load { my $btf = pack("SCCL5 L4 a5", 0xeb9f, 1, 0, 24, 0, 16, 16, 5, 1, 0x01000000, 4, 0x01000020, "\\0int\\0");
  syscall ${NR_BPF}, 18, pack("QQL4Ll", at($btf), 0, length $btf, 0, 0, 0, $with, $t), 40 }
`

export interface Answer {
  readonly seen: SeenCall
  readonly explained: Explanation
  /** Of the same call, had it not been made yet. */
  readonly foretold: Explanation
}

export interface How {
  readonly guard?: Guard
  /** Done at each `stage`, with the number of the process. */
  readonly at?: readonly ((pid: number) => unknown)[]
  /** It makes its token itself. */
  readonly alone?: boolean
}

/** Runs Perl below a command, and explains each of its calls while it lives. */
export async function explained(
  scratch: Scratch,
  command: readonly string[],
  script: string,
  { guard, at = [], alone = false }: How = {},
): Promise<Answer[]> {
  const begin = alone ? '' : 'take_token();'
  const file = scratch.write('calls.pl', `${PERL}\n${begin} ${script}; print "done\\n"; <STDIN>`)
  return await explainedRun([...command, 'perl', file], 'perl', { at, ...(guard && { guard }) })
}

/** The same of any program whose thread has this name, and that says `done` at its end. */
export async function explainedRun(
  command: readonly string[],
  task: string,
  { guard, at = [] }: How = {},
): Promise<Answer[]> {
  const calls: SeenCall[] = []
  using recorder = await Recorder.start(
    call => {
      if (call.task === task && isExplained(call)) calls.push(call)
    },
    { logs: true },
  )
  let child!: ChildProcess
  recorder.watchForked(() => {
    child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
  })
  try {
    let said = ''
    child.stdout!.on('data', chunk => {
      said += String(chunk)
    })
    const until = (what: RegExp): Promise<void> =>
      eventually(() => what.test(said) || child.exitCode !== null, `it never said ${what}`)
    for (const act of at) {
      await until(/stage \d+\n/)
      const pid = Number(/stage (\d+)\n/.exec(said)?.[1])
      said = ''
      await act(pid)
      child.stdin!.write('\n')
    }
    await until(/done/)
    recorder.drain()
    assert.ok(calls.length > 0, `no call was seen: ${said}`)
    const kernel = runningKernel()
    const answers: Answer[] = []
    const known = new Map<number, Situation>()
    for (const seen of calls) {
      const { pid, tid } = seen
      const situation = known.get(tid) ?? (await situationOfThread(pid, tid, guard))
      known.set(tid, situation)
      const looked = seen.need === undefined ? await lookAt(seen, guard) : { situation, other: undefined }
      const { other } = looked
      answers.push({
        seen,
        explained: explainSeen(kernel, looked, seen, undefined),
        foretold:
          other === undefined
            ? explainCall(kernel, situation, seen.need!)
            : explainOther(kernel, looked.situation, other),
      })
    }
    return answers
  } finally {
    child.stdin!.end('\n')
    await eventually(() => child.exitCode !== null || child.signalCode !== null, 'it never ended')
  }
}

export type Rights = Record<'cmds' | 'maps' | 'progs' | 'attachs' | 'capabilities', string[]>

export function policyText(rights: Rights, more = ''): string {
  const spec = Object.entries(rights).map(([list, words]) => `    ${list}: [${words.join(', ')}]`)
  const head = ['apiVersion: bpftoken.dev/v1', 'kind: DelegationPolicy', 'metadata: { name: t }', 'spec:']
  return [...head, '  rights:', ...spec, more, ''].join('\n')
}

/** The words that run a program under these rights. */
export function under(scratch: Scratch, rights: Rights, more = ''): string[] {
  const file = scratch.write('policy.yaml', policyText(rights, more))
  return [process.execPath, CLI, 'run', '--policy', file, '--']
}

export const ZERO = 'cgroup_inet_ingress'
export const ENOUGH: Rights = {
  ...{ cmds: ['map_create', 'prog_load'], maps: ['hash'], progs: ['socket_filter'] },
  ...{ attachs: [ZERO], capabilities: ['bpf'] },
}
export const HASH = 'map_create(1, 4, 4, 1, 0)'
