import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { anonymous, database, type Person, session, signUp, superuser } from './support/local.ts'

const create = (person: Person, name = 'Laptop', scopes?: string[]) =>
  person.client.rpc('create_api_key', { name, ...(scopes && { scopes }) })

describe('a personal API key', () => {
  it('B-26 is shown once; its person sees its name, beginning and scopes after that', async () => {
    const ada = await signUp()

    const { data, error } = await create(ada, 'SillyTavern', ['chat', 'models'])

    expect(error).toBeNull()
    const { key, ...row } = data as unknown as { key: string; id: string }
    expect(key).toMatch(/^pk_parlor_[0-9a-f]{64}$/)
    expect(row).toMatchObject({ name: 'SillyTavern', prefix: key.slice(0, 18), scopes: ['chat', 'models'] })
    const { data: listed } = await ada.client.from('api_keys').select()
    expect(listed).toEqual([row])
    expect(JSON.stringify(listed)).not.toContain(key.slice(18))
  })

  it('is kept as a hash that no client can read', async () => {
    const ada = await signUp()
    const { data } = await create(ada)
    const { key, id } = data as unknown as { key: string; id: string }

    const [row] = await superuser()`select hash from private.api_key_hashes where key_id = ${id}`
    expect(row!.hash).toEqual(createHash('sha256').update(key).digest())
    const [found] = await superuser()`
      select count(*)::int as rows from public.api_keys as k where to_jsonb(k)::text like ${`%${key.slice(18)}%`}`
    expect(found!.rows).toBe(0)
    expect((await ada.client.from('api_key_hashes' as never).select()).error).not.toBeNull()
  })

  it('is nobody else’s to see or revoke', async () => {
    const [ada, eve] = [await signUp(), await signUp()]
    const { data } = await create(ada)
    const { id } = data as unknown as { id: string }

    expect((await eve.client.from('api_keys').select().eq('id', id)).data).toEqual([])
    expect((await anonymous().from('api_keys').select()).error?.code).toBe('42501')
    expect((await eve.client.rpc('revoke_api_key', { key_id: id })).error?.message).toBe('api_key_not_found')
    expect((await eve.client.from('api_keys').insert({ name: 'x' } as never)).error?.code).toBe('42501')
    expect(
      (
        await ada.client
          .from('api_keys')
          .update({ name: 'x' } as never)
          .eq('id', id)
      ).error?.code,
    ).toBe('42501')
  })

  it('is revoked by its person, and revoking it again changes nothing', async () => {
    const ada = await signUp()
    const { data } = await create(ada)
    const { id } = data as unknown as { id: string }

    const first = await ada.client.rpc('revoke_api_key', { key_id: id })
    const second = await ada.client.rpc('revoke_api_key', { key_id: id })

    expect((first.data as unknown as { revoked_at: string }).revoked_at).toEqual(expect.any(String))
    expect(second.data).toEqual(first.data)
  })

  it.each([
    [{ name: ' ' }, 'api_key_name_invalid'],
    [{ name: 'x', scopes: ['admin'] }, 'api_key_scope_unknown'],
    [{ name: 'x', scopes: [] }, 'api_key_scope_unknown'],
    [{ name: 'x', expires_in_days: -1 }, 'api_key_expiry_invalid'],
    [{ name: 'x', expires_in_days: 3651 }, 'api_key_expiry_invalid'],
  ])('is not made of %j', async (wish, code) => {
    const ada = await signUp()

    expect((await ada.client.rpc('create_api_key', wish)).error?.message).toBe(code)
  })

  it('is one of at most twenty that work, also when two are asked for at once', async () => {
    const ada = await signUp()
    const claims = JSON.stringify({ sub: ada.id, role: 'authenticated' })
    const make = `select public.create_api_key('Key') from generate_series(1, 10)`
    const first = session()
    const second = session()
    for (const sql of [first, second]) {
      await sql.unsafe('begin')
      await sql`select set_config('role', 'authenticated', true), set_config('request.jwt.claims', ${claims}, true)`
    }
    await first.unsafe(`${make}; ${make.replace('10', '9')}`)

    const [{ pid }] = (await second`select pg_backend_pid() as pid`) as unknown as [{ pid: number }]
    const late = second.unsafe(make.replace('10', '2')).then(
      () => 'made',
      (error) => error.message,
    )
    await waits(pid)
    await first.unsafe('commit')

    expect(await late).toBe('api_key_limit_reached')
    await second.unsafe('rollback')
    expect((await create(ada)).error).toBeNull()
    expect((await create(ada)).error?.message).toBe('api_key_limit_reached')
    const { data } = await ada.client.from('api_keys').select('id').limit(1).single()
    await ada.client.rpc('revoke_api_key', { key_id: data!.id })
    expect((await create(ada)).error).toBeNull()
  })

  it('goes with the account', async () => {
    const ada = await signUp()
    await create(ada)

    await database()`select private.tombstone_user(${ada.id})`

    const [left] = await database()`select count(*)::int as rows from public.api_keys where user_id = ${ada.id}`
    expect(left!.rows).toBe(0)
  })
})

/** Resolves once this session waits for a lock. */
async function waits(pid: number) {
  for (;;) {
    const [row] = await database()`select cardinality(pg_blocking_pids(${pid})) as blockers`
    if (row!.blockers > 0) return
  }
}
