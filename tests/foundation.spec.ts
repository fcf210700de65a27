import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { admin, anonymous, database, session, signUp, until } from './support/local.ts'

/** Two sessions that meet: what only shows when transactions overlap. */
async function overlapping() {
  const [first, second] = [session(), session()]
  const [{ pid }] = (await second`select pg_backend_pid() as pid`) as unknown as [{ pid: number }]
  await first`begin`
  return {
    first,
    second,
    secondWaits: () =>
      until(async () => (await database()`select from pg_locks where pid = ${pid} and not granted`).length),
  }
}

describe('idempotency keys', () => {
  const body = { text: 'hello' }

  it('hold back the same request until the first one ends, and give it the same answer', async () => {
    const ada = await signUp()
    const { first, second, secondWaits } = await overlapping()
    const [fresh] = await first`select private.remember_request(${ada.id}, 'test', 'k', ${first.json(body)}) as answer`

    const again =
      second`select private.remember_request(${ada.id}, 'test', 'k', ${second.json(body)}) as answer`.execute()
    await secondWaits()
    await first`select private.store_response(${ada.id}, 'test', 'k', '{"id": 1}')`
    await first`commit`

    expect(fresh!.answer).toBeNull()
    expect((await again)[0]!.answer).toEqual({ id: 1 })
  })

  it('let the second request do the work when the first one rolls back', async () => {
    const ada = await signUp()
    const { first, second, secondWaits } = await overlapping()
    await first`select private.remember_request(${ada.id}, 'test', 'k', ${first.json(body)})`

    const again =
      second`select private.remember_request(${ada.id}, 'test', 'k', ${second.json(body)}) as answer`.execute()
    await secondWaits()
    await first`rollback`

    expect((await again)[0]!.answer).toBeNull()
  })
})

describe('owners', () => {
  it('are made once when two transactions need the same one', async () => {
    const ada = await signUp()
    // Everybody has one from sign-up on; who has lost it gets another.
    await database()`delete from private.owners where user_id = ${ada.id}`
    const { first, second, secondWaits } = await overlapping()
    const [mine] = await first`select private.owner_of(${ada.id}) as id`

    const theirs = second`select private.owner_of(${ada.id}) as id`.execute()
    await secondWaits()
    await first`commit`

    expect((await theirs)[0]!.id).toBe(mine!.id)
  })
})

describe('the outbox', () => {
  it('hands each event to one of two consumers, and loses none that commits late', async () => {
    const kind = `test.${randomUUID().replaceAll(/[^a-f]/g, '')}x`
    const emit = (sql: ReturnType<typeof session>) => sql`select private.emit_event(${kind}, ${randomUUID()}, '{}')`
    const take = (sql: ReturnType<typeof session>) => sql`
      update private.outbox set processed_at = now() where id in (
        select id from private.outbox where kind = ${kind} and processed_at is null order by id limit 2 for update skip locked
      ) returning id::int`
    const [late, one, two] = [session(), session(), session()]
    await late`begin`
    await emit(late)
    for (let n = 0; n < 4; n++) await emit(one)
    await one`begin`
    await two`begin`

    const [first, second] = [await take(one), await take(two)]
    await Promise.all([late`commit`, one`commit`, two`commit`])
    const third = await take(one)

    const ids = [...first, ...second, ...third].map((row) => row.id)
    expect([first.length, second.length, third.length]).toEqual([2, 2, 1])
    expect(new Set(ids).size).toBe(5)
    expect(third[0]!.id).toBeLessThan(Math.min(...ids.slice(0, 4)))
  })
})

describe('deleting an account', () => {
  it('once is one tombstone, also when it is asked twice in one moment', async () => {
    const ada = await signUp()
    const { first, second, secondWaits } = await overlapping()
    const [one] = await first`select service.begin_account_deletion(${ada.id}) ->> 'job_id' as job`

    const two = second`select service.begin_account_deletion(${ada.id}) ->> 'job_id' as job`.execute()
    await secondWaits()
    await first`commit`

    expect((await two)[0]!.job).toBe(one!.job)
    const events = await database()`select from private.outbox where kind = 'user.deleted' and subject_id = ${ada.id}`
    expect(events).toHaveLength(1)
  })

  it('by Auth’s admin API or in the dashboard ends as if the person had done it', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])
    const names = await database()`select username from public.profiles where id in ${database()([ada.id, bob.id])}`
    await ada.client.from('documents').insert({ collection: 'notes', data: {} })

    const { error } = await admin().auth.admin.deleteUser(ada.id)
    await database()`delete from auth.users where id = ${bob.id}`

    expect(error).toBeNull()
    const left = await database()`select from public.profiles where id in ${database()([ada.id, bob.id])}`
    expect(left).toHaveLength(0)
    const reserved = await database()`
      select from private.reserved_usernames where username in ${database()(names.map((row) => row.username))}`
    expect(reserved).toHaveLength(2)
    const events = await database()`
      select payload from private.outbox where subject_id in ${database()([ada.id, bob.id])} order by id`
    expect(events.map((event) => event.payload)).toEqual([{ user_id: ada.id }, { user_id: bob.id }])
  })

  it('by its owner while the dashboard deletes it as well ends without a deadlock', async () => {
    const ada = await signUp()
    const { first: holder, second: owner, secondWaits: ownerWaits } = await overlapping()
    await holder`select from public.profiles where id = ${ada.id} for update`

    const byOwner = owner`select service.begin_account_deletion(${ada.id}) ->> 'status' as status`.execute()
    await ownerWaits()
    const { second: dashboard, secondWaits: dashboardWaits } = await overlapping()
    const inDashboard = dashboard`delete from auth.users where id = ${ada.id} returning id`.execute()
    await dashboardWaits()
    await holder`commit`

    expect(await byOwner).toEqual([{ status: 'deleted' }])
    expect(await inDashboard).toEqual([{ id: ada.id }])
  })

  it('refuses its token from then on, everywhere', async () => {
    const ada = await signUp()

    await database()`select service.begin_account_deletion(${ada.id})`

    const me = await ada.client.rpc('me')
    const written = await ada.client.from('documents').insert({ collection: 'notes', data: {} })
    const refreshed = await ada.client.auth.refreshSession()
    const again = await anonymous().auth.signInWithPassword({ email: ada.email, password: ada.password })
    expect([me.status, me.error?.message]).toEqual([403, 'account_not_active'])
    expect(written.error?.code).toBe('42501')
    expect(refreshed.error).not.toBeNull()
    expect(again.error).not.toBeNull()
  })
})
