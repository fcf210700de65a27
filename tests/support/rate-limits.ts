import { randomUUID } from 'node:crypto'
import OpenAI, { RateLimitError } from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { database, type Person, signUp, until } from './local.ts'

/** Two isolates of the functions, as `http://host:port`, whose limits are kept in one store. The second knows an address that is exempt. */
export interface Limited {
  isolates: [string, string]
}

/** The address that the second isolate is told of in RATE_LIMIT_EXEMPT. */
export const exempt = '203.0.113.7'

const sql = database()
/** A plan of this file's own: four calls at once on every route; no other comes while a test runs. */
export const plan = `rates_${randomUUID().slice(0, 8)}`

/** Makes the plan, and takes it away after the file's tests. */
export function withPlan(): void {
  beforeAll(async () => {
    await sql`
      insert into public.plans (id, name, position, max_model_tier, can_use_voice)
      values (${plan}, 'Rates', ${1000 + Math.floor(Math.random() * 30_000)}, 0, false)`
    await sql`
      insert into private.rate_rules (route, plan_id, capacity, refill_per_second) values ('*', ${plan}, 4, 0.01)`
  })
  afterAll(async () => {
    await sql`delete from private.user_plans where plan_id = ${plan}`
    await sql`delete from public.plans where id = ${plan}`
  })
}

/** Does something while a route has a rule of its own, by default for the plan of these tests. */
async function withRule(
  { route, capacity, refill, of = plan }: { route: string; capacity: number; refill: number; of?: string },
  work: () => Promise<void>,
): Promise<void> {
  await sql`
    insert into private.rate_rules (route, plan_id, capacity, refill_per_second)
    values (${route}, ${of}, ${capacity}, ${refill})`
  try {
    await work()
  } finally {
    await sql`delete from private.rate_rules where route = ${route} and plan_id = ${of}`
  }
}

export async function limited(): Promise<Person> {
  const person = await signUp()
  await sql`select admin.set_plan(${person.id}, ${plan})`
  return person
}

/** A route that reads and costs nothing. */
export const read = (person: Person, isolate: string) =>
  fetch(`${isolate}/chat/generations/${randomUUID()}/stream`, { headers: { authorization: `Bearer ${person.token}` } })

/** One that costs money. */
export const complete = (person: Person, isolate: string) =>
  fetch(`${isolate}/chat/complete`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Hi', stream: false }),
  })

const leftOf = ({ headers }: Response) => Number(headers.get('ratelimit')?.match(/^"\w+";r=(\d+);t=\d+$/)?.[1])
const statuses = (answers: Response[]) => answers.map(({ status }) => status)

/** What holds of limits wherever the buckets are kept. */
export function keepsLimits(where: string, held: Limited): void {
  describe(`the rate of a person’s calls, kept in ${where},`, () => {
    it('V-26 S-18 is told on every answer, and what is over it is refused until Retry-After is over', async () => {
      const person = await limited()
      const [one] = held.isolates

      const answers: Response[] = []
      for (let call = 0; call < 5; call += 1) answers.push(await read(person, one))

      expect(statuses(answers)).toEqual([404, 404, 404, 404, 429])
      for (const answer of answers) expect(answer.headers.get('ratelimit-policy')).toBe(`"${plan}";q=4;w=400`)
      expect(answers.map(leftOf)).toEqual([3, 2, 1, 0, 0])
      const refused = answers[4]!
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(50)
      expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(100)
      expect(refused.headers.get('access-control-expose-headers')).toContain('ratelimit')
      expect(await refused.json()).toMatchObject({ status: 429, code: 'rate_limit_exceeded' })
    })

    it('S-18 is one for all isolates: of many calls at once exactly the burst comes through', async () => {
      const person = await limited()
      await withRule({ route: 'chat/generations/:id/stream', capacity: 7, refill: 0.001 }, async () => {
        const calls = Array.from({ length: 30 }, (_, call) => read(person, held.isolates[call % 2]!))
        const answers = await Promise.all(calls)

        const through = answers.filter(({ status }) => status === 404)
        expect(through.map(leftOf).sort()).toEqual([0, 1, 2, 3, 4, 5, 6])
        expect(answers.filter(({ status }) => status === 429)).toHaveLength(23)
      })
    })

    it('S-18 is their own, and that of their plan at this moment', async () => {
      const [person, other] = [await limited(), await limited()]
      const [one] = held.isolates
      for (let call = 0; call < 5; call += 1) await read(person, one)

      expect((await read(other, one)).status).toBe(404)
      expect((await read(person, one)).status).toBe(429)
      await sql`select admin.set_plan(${person.id}, 'pro')`
      expect((await read(person, one)).headers.get('ratelimit-policy')).toMatch(/^"pro";q=\d+/)
    })

    it('V-26 may differ by route', async () => {
      const person = await limited()
      const [one] = held.isolates
      await withRule({ route: 'chat/complete', capacity: 1, refill: 0.01 }, async () => {
        const answers = [await complete(person, one), await complete(person, one), await read(person, one)]

        expect(statuses(answers)).toEqual([200, 429, 404])
        expect(Number(answers[1]!.headers.get('retry-after'))).toBeGreaterThan(90)
      })
    })

    it('B-26 is a RateLimitError to the vendor’s client, which waits as long as it is told and asks again', async () => {
      const person = await limited()
      const [one] = held.isolates
      const ask = (maxRetries: number) =>
        new OpenAI({
          apiKey: person.token,
          baseURL: `${one}/openai/v1`,
          maxRetries,
          organization: null,
          project: null,
        }).chat.completions.create({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hi' }] })
      await withRule({ route: 'openai/v1/chat/completions', capacity: 1, refill: 1 }, async () => {
        const error = await until(() =>
          ask(0).then(
            () => null,
            (error) => error,
          ),
        )
        const patient = await ask(5)

        expect(error).toBeInstanceOf(RateLimitError)
        expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'rate_limit_error' })
        expect(error.headers.get('retry-after')).toBe('1')
        expect(patient.choices[0]!.message.content).not.toBe('')
      })
    })

    it('S-18 is that of the address for who has not signed in, as the proxy wrote it; some have none', async () => {
      const [, two] = held.isolates
      const echo = (address: string) =>
        fetch(`${two}/health/echo?text=x&delay_ms=0`, { headers: { 'x-forwarded-for': address } })
      const [one, other] = [1, 2].map((net) => `2001:db8:${net}::${randomUUID().slice(0, 4)}`)
      await withRule({ route: 'health/echo', capacity: 120, refill: 0.001, of: 'free' }, async () => {
        expect(leftOf(await echo(one!))).toBe(119)
        expect(leftOf(await echo(`203.0.113.9, ${one}`))).toBe(118)
        expect(leftOf(await echo(`${exempt}, ${one}`))).toBe(117)
        expect(leftOf(await echo(other!))).toBe(119)
        expect((await echo(exempt)).headers.has('ratelimit')).toBe(false)
      })
    })

    it('is known to admins: who was let through and refused, and how often', async () => {
      const person = await limited()
      for (let call = 0; call < 6; call += 1) await read(person, held.isolates[call % 2]!)

      const hits = await until(async () => {
        const [hit] = await sql`
          select taken::int, refused::int, refused_share::float, email from admin.rate_hits
          where subject = ${`user:${person.id}`} and route = '*'`
        return hit && hit.taken + hit.refused === 6 ? hit : null
      })

      expect(hits).toEqual({ taken: 4, refused: 2, refused_share: 0.3333, email: person.email })
    })
  })
}

/** A store outside the database that a test can break. */
export interface Breakable extends Limited {
  /** Nothing answers, or nothing in time. */
  goDown(): Promise<unknown>
  goSlow(): Promise<unknown>
  /** All is well again. */
  recover(): Promise<unknown>
  /** It forgets its buckets, and the scripts it knew. */
  forget(): Promise<unknown>
}

/** What holds of limits while the store outside is not well. */
export function survives(where: string, held: Breakable): void {
  const closed = async (answer: Response) => {
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('5')
    expect(await answer.json()).toMatchObject({ code: 'rate_limit_unavailable' })
  }
  const open = (answer: Response) => {
    expect(answer.status).toBe(404)
    expect(answer.headers.has('ratelimit')).toBe(false)
  }

  describe(`limits whose store, ${where},`, () => {
    it.each([
      ['is down', () => held.goDown()],
      ['is slow', () => held.goSlow()],
    ])('S-18 M-19 %s let reads pass, close what costs money, and go on when it is back', async (_, fail) => {
      const person = await limited()
      const [one, two] = held.isolates
      expect(leftOf(await read(person, one))).toBe(3)

      await fail()
      const [reading, asking] = await Promise.all([read(person, one), complete(person, two)])
      await held.recover()

      open(reading)
      await closed(asking)
      const after = await complete(person, two)
      expect(after.status).toBe(200)
      expect(leftOf(after)).toBeLessThan(4)
    })

    it('S-18 M-19 forgets everything are full again', async () => {
      const person = await limited()
      const [one] = held.isolates
      for (let call = 0; call < 5; call += 1) await read(person, one)
      expect((await read(person, one)).status).toBe(429)

      await held.forget()

      expect(leftOf(await read(person, one))).toBe(3)
    })
  })
}
