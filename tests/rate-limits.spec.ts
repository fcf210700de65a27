import { randomUUID } from 'node:crypto'
import OpenAI, { RateLimitError } from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { database, functionsUrl, type Person, session, signUp, stack } from './support/local.ts'

const sql = database()
/** A plan of this file's own: four calls at once on every route, and one more each two seconds. */
const plan = `rates_${randomUUID().slice(0, 8)}`

const limited = async (): Promise<Person> => {
  const person = await signUp()
  await sql`select admin.set_plan(${person.id}, ${plan})`
  return person
}

/** A route that reads and costs nothing. */
const read = (person: Person) =>
  fetch(`${functionsUrl}/chat/generations/${randomUUID()}/stream`, {
    headers: { authorization: `Bearer ${person.token}` },
  })
/** One that costs money. */
const complete = (person: Person) =>
  fetch(`${functionsUrl}/chat/complete`, {
    method: 'POST',
    headers: { authorization: `Bearer ${person.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Hi', stream: false }),
  })

beforeAll(async () => {
  await sql`
    insert into public.plans (id, name, position, max_model_tier, can_use_voice)
    values (${plan}, 'Rates', ${1000 + Math.floor(Math.random() * 30_000)}, 0, false)`
  await sql`insert into private.rate_rules (route, plan_id, capacity, refill_per_second) values ('*', ${plan}, 4, 0.5)`
})
afterAll(async () => {
  await sql`delete from private.user_plans where plan_id = ${plan}`
  await sql`delete from public.plans where id = ${plan}`
})

describe('the rate of a person’s calls', () => {
  it('V-26 S-18 is told on every answer, and what is over it is refused until Retry-After is over', async () => {
    const person = await limited()

    const answers = []
    for (let call = 0; call < 5; call += 1) answers.push(await read(person))

    expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404, 429])
    for (const answer of answers) expect(answer.headers.get('ratelimit-policy')).toBe(`"${plan}";q=4;w=8`)
    const left = answers.map(({ headers }) => headers.get('ratelimit')!.match(/^"\w+";r=(\d+);t=\d+$/)![1])
    expect(left).toEqual(['3', '2', '1', '0', '0'])
    const refused = answers[4]!
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(2)
    expect(refused.headers.get('access-control-expose-headers')).toContain('ratelimit')
    expect(await refused.json()).toMatchObject({ status: 429, code: 'rate_limit_exceeded' })
  })

  it('S-18 is their own, and that of their plan at this moment', async () => {
    const [person, other] = [await limited(), await limited()]
    for (let call = 0; call < 5; call += 1) await read(person)

    expect((await read(other)).status).toBe(404)
    expect((await read(person)).status).toBe(429)
    await sql`select admin.set_plan(${person.id}, 'pro')`
    expect((await read(person)).headers.get('ratelimit-policy')).toMatch(/^"pro";q=\d+/)
  })

  it('V-26 may differ by route', async () => {
    const person = await limited()
    await sql`
      insert into private.rate_rules (route, plan_id, capacity, refill_per_second)
      values ('chat/complete', ${plan}, 1, 0.01)`

    const answers = [await complete(person), await complete(person), await read(person)]

    await sql`delete from private.rate_rules where plan_id = ${plan} and route = 'chat/complete'`
    expect(answers.map(({ status }) => status)).toEqual([200, 429, 404])
    expect(Number(answers[1]!.headers.get('retry-after'))).toBeGreaterThan(90)
  })

  it('B-26 is a RateLimitError to the vendor’s client, which waits as long as it is told and asks again', async () => {
    const person = await limited()
    const client = (maxRetries: number) =>
      new OpenAI({
        apiKey: person.token,
        baseURL: `${functionsUrl}/openai/v1`,
        maxRetries,
        organization: null,
        project: null,
      })
    const ask = (maxRetries: number) =>
      client(maxRetries).chat.completions.create({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hi' }] })
    for (let call = 0; call < 4; call += 1) await read(person)

    const error = await ask(0).catch((error) => error)
    const patient = await ask(3)

    expect(error).toBeInstanceOf(RateLimitError)
    expect(error).toMatchObject({ status: 429, code: 'rate_limit_exceeded', type: 'rate_limit_error' })
    expect(Number(error.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    expect(patient.choices[0]!.message.content).not.toBe('')
  })

  it('S-18 is that of the address for who has not signed in, as the proxy wrote it', async () => {
    const echo = (address: string) =>
      fetch(`http://127.0.0.1:${stack.ports.functions}/health/echo?text=x&delay_ms=0`, {
        headers: { 'x-forwarded-for': address },
      })
    const one = `2001:db8::${randomUUID().slice(0, 4)}`
    const leftOf = async (address: string) =>
      Number((await echo(address)).headers.get('ratelimit')!.match(/r=(\d+)/)![1])

    const first = await leftOf(one)
    const forged = await leftOf(`203.0.113.9, ${one}`)
    const other = await leftOf('2001:db8:1::1')

    expect(forged).toBeLessThan(first)
    expect(other).toBeGreaterThan(forged)
    const [hit] = await sql`select taken::int from private.rate_buckets where key = ${`* address:${one}`}`
    expect(hit!.taken).toBe(2)
  })

  it('is not asked of who watches the service', async () => {
    for (const path of ['', '/live', '/ready', '/providers']) {
      expect((await fetch(`${functionsUrl}/health${path}`)).headers.has('ratelimit')).toBe(false)
    }
  })

  it('S-18 that cannot be checked lets reads pass, and closes what costs money', async () => {
    const person = await limited()
    await read(person)
    const holder = session()
    await holder.unsafe('begin')
    await holder`select from private.rate_buckets where key = ${`* user:${person.id}`} for update`

    const [reading, asking] = await Promise.all([read(person), complete(person)])
    await holder.unsafe('rollback')

    expect(reading.status).toBe(404)
    expect(reading.headers.has('ratelimit')).toBe(false)
    expect(asking.status).toBe(503)
    expect(asking.headers.get('retry-after')).toBe('5')
    expect(await asking.json()).toMatchObject({ code: 'rate_limit_unavailable' })
    expect((await complete(person)).status).toBe(200)
  })
})
