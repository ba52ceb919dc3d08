import { onKernel, predict, predicted } from './differ.ts'
import { generate } from './generate.ts'
import { ALL_CAPABILITIES, Lab } from './lab.ts'
import { Random } from './random.ts'
import { enact, story, tell } from './stories.ts'

async function main() {
  let t = Date.now()
  const lap = (w: string) => {
    console.log(w, Date.now() - t, 'ms')
    t = Date.now()
  }
  const lab = await Lab.open()
  lap('open')
  console.log('hooks', lab.hooks)
  const random = new Random(3)
  await lab.renew(random)
  lap('renew')
  for (let i = 0; i < 3; i++) {
    const specs = Array.from({ length: 2000 }, () => generate(random, lab))
    lap('generate 2000')
    specs.map(s => predict(lab, s))
    lap('predict 2000')
    const out = await onKernel(lab, specs)
    lap('kernel 2000')
    let d = 0
    for (const [i, s] of specs.entries()) {
      const p = predicted(predict(lab, s))
      if (p !== out[i]) {
        d++
        if (d < 4) console.log(JSON.stringify(s), out[i], p)
      }
    }
    console.log('differ', d)
    lap('compare')
  }
  const stories = Array.from({ length: 200 }, () => story(random, lab))
  await enact(lab, stories)
  lap('200 stories')
  const { progs, attachs } = lab.kernel.vocabulary
  const specs: any[] = []
  for (const type of progs.nameOfBit.keys())
    for (const attach of attachs.nameOfBit.keys())
      if (attach > 55)
        for (const kernelTarget of [undefined, true])
          specs.push({
            op: 'prog_load',
            context: 0,
            caps: 15,
            type,
            attach,
            unreadable: true,
            ...(kernelTarget ? { kernelTarget } : {}),
          })
  const out = await onKernel(lab, specs)
  const odd = new Map<string, string[]>()
  for (const [i, s] of specs.entries()) {
    const p = predicted(predict(lab, s))
    if (p !== out[i]) {
      const k = `${attachs.nameOfBit.get(s.attach)}${s.kernelTarget ? '+target' : ''}: kernel ${out[i]} model ${p}`
      odd.set(k, [...(odd.get(k) ?? []), progs.nameOfBit.get(s.type)!])
    }
  }
  for (const [k, v] of odd) console.log(k, v.join(' '))
  lap('odd')
  await lab.close()
}
void main()
