import { describe, expect, it } from 'vitest'
import { attach, marker, modelRequests, named, readAll, send, shown, startTalk } from './support/chat.ts'
import { database, functionsUrl, publishableKey, secretKey, session, signUp, stack, until } from './support/local.ts'

const wake = (headers: Record<string, string> = {}) => fetch(`${functionsUrl}/worker`, { method: 'POST', headers })
const withSecret = { authorization: `Bearer ${stack.keys.localSecret}` }

describe('the worker', () => {
  it('answers at once that it works, however often it is woken', async () => {
    const answers = await Promise.all([wake(withSecret), wake(withSecret), wake(withSecret)])

    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202])
    const bodies = await Promise.all(answers.map((answer) => answer.json()))
    expect(new Set(bodies.map(({ worker_id }) => worker_id)).size).toBe(1)
  })

  it('is woken by nobody who does not know its secret', async () => {
    const { token } = await signUp()
    const attempts: [Record<string, string>, string][] = [
      [{}, 'worker_secret_required'],
      [{ apikey: secretKey }, 'worker_secret_required'],
      [{ authorization: `Bearer ${token}` }, 'worker_secret_invalid'],
      [{ authorization: `Bearer ${secretKey}` }, 'worker_secret_invalid'],
      [{ authorization: `Bearer ${publishableKey}` }, 'worker_secret_invalid'],
      [{ authorization: `Bearer ${stack.keys.localSecret}x` }, 'worker_secret_invalid'],
    ]

    for (const [headers, code] of attempts) {
      const response = await wake(headers)
      expect(response.status).toBe(401)
      expect(await response.json()).toMatchObject({ code })
    }
  })

  it('K-09 shows a job to its owner from waiting to completed, and to nobody else', async () => {
    const talk = await startTalk({ model: 'sandbox/slow-100' })
    const stranger = await signUp()
    const { job_id } = await (await send(talk, { body: { run: 'queued', stream: false } })).json()
    const read = async (person: typeof stranger) =>
      (await person.client.from('jobs').select('status').eq('id', job_id).maybeSingle()).data?.status

    const seen = new Set<string>()
    await until(async () => {
      const status = await read(talk.person)
      seen.add(status!)
      return status === 'completed'
    }, 45_000)

    expect(seen).toContain('active')
    expect(await read(stranger)).toBeUndefined()
  }, 60_000)

  it('makes the answers of several people at once, and no more than one at a time in a conversation', async () => {
    const said = marker()
    const talks = await Promise.all(Array.from({ length: 4 }, () => startTalk({ model: 'sandbox/slow-60' })))
    const queued = await Promise.all(
      talks.map(async (talk) => (await send(talk, { content: said, body: { run: 'queued', stream: false } })).json()),
    )

    await until(async () => {
      const requests = await modelRequests(said)
      return requests.filter(({ state }) => state === 'streaming').length >= 3
    }, 30_000)
    const answers = await Promise.all(
      talks.map(async ({ person }, index) => readAll(await attach(person, queued[index].generation.id))),
    )

    for (const all of answers) expect(named(all, 'completed')!.data.message.content).toBe(shown(all))
    expect(await modelRequests(said)).toHaveLength(4)
  }, 60_000)

  it('tries a job of an unknown kind again later instead of losing it', async () => {
    const sql = database()
    await sql`insert into private.job_kinds (kind, max_attempts, meaning) values ('of_tomorrow', 3, 'For a test.')
      on conflict do nothing`
    const [job] = await sql`select private.enqueue_job('of_tomorrow', null, '{}'::jsonb) as id`

    const row = await until(async () => {
      const [now] = await sql`select status, error from public.jobs where id = ${job!.id}`
      return now?.error ? now : null
    }, 30_000)

    expect(row).toMatchObject({ status: 'waiting', error: { code: 'kind_unknown' } })
    await sql`delete from public.jobs where id = ${job!.id}`
  }, 45_000)

  it('erases an account whose deletion had to wait for somebody’s lock, and in one attempt', async () => {
    const person = await signUp()
    const holder = session()
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    let began = false
    const holding = holder.begin(async (transaction) => {
      // The tombstone of the account waits for this row, so the whole deletion does.
      await transaction`select from public.profiles where id = ${person.id} for update`
      began = true
      await held
    })
    await until(() => began)
    const asked = fetch(`${functionsUrl}/account`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${person.token}` },
    })
    await until(async () => {
      const waiting =
        await database()`select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'begin_account'`
      return waiting.length > 0
    })
    release()
    await holding

    const { job_id } = await (await asked).json()
    const job = await until(async () => {
      const [row] = await database()`select status, attempts from public.jobs where id = ${job_id}`
      return row?.status === 'completed' ? row : null
    }, 45_000)
    expect(job).toEqual({ status: 'completed', attempts: 1 })
  }, 60_000)
})
