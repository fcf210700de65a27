import { describe, expect, it } from 'vitest'
import { projectStack } from '../support/project.ts'

const api = projectStack('tests/local/fixtures/data-api')
const anon = () => api.client()
const raw = (path: string, init: RequestInit & { headers?: Record<string, string> } = {}) =>
  fetch(`${api.url}/rest/v1${path}`, { ...init, headers: { apikey: api.stack.keys.publishable, ...init.headers } })
const post = (path: string, body: string, headers: Record<string, string> = {}) =>
  raw(path, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } })

/** Adds one sample and returns the columns asked for. */
async function add(values: Record<string, unknown>, columns = '*'): Promise<Record<string, unknown>> {
  const { data, error } = await anon().from('samples').insert(values).select(columns).single()
  if (error) throw error
  return data as unknown as Record<string, unknown>
}

describe('grants', () => {
  it('a request changes no grant and no default privilege', async () => {
    const sql = api.sql('supabase_admin')
    const grants = () => sql`
      select relname, relacl::text from pg_class where relacl is not null
      union all select nspname, nspacl::text from pg_namespace
      union all select 'default', defaclacl::text from pg_default_acl order by 1, 2`
    const before = await grants()

    await anon().from('many').select()
    await api
      .client(await api.token())
      .from('notes')
      .select('id')

    expect(await grants()).toEqual(before)
  })

  it('a table without grants is refused to anon with 401 and to a user with 403, for reading and writing', async () => {
    const user = api.client(await api.token())

    for (const [client, status] of [
      [anon(), 401],
      [user, 403],
    ] as const) {
      const read = await client.from('closed').select()
      const write = await client.from('closed').insert({ id: 2 })
      expect([read.status, read.error?.code]).toEqual([status, '42501'])
      expect([write.status, write.error?.code]).toEqual([status, '42501'])
    }
  })

  it('column privileges hold', async () => {
    const user = api.client(await api.token())

    expect((await user.from('notes').select('*')).error?.code).toBe('42501')
    expect((await user.from('notes').select('id, body')).error).toBeNull()
    expect((await user.from('notes').insert({ body: 'x', secret: 'y' })).error?.code).toBe('42501')
  })

  it('row level security binds each caller', async () => {
    const [alice, bob] = [api.client(await api.token()), api.client(await api.token())]
    const { data: note } = await alice.from('notes').insert({ body: 'mine' }).select('id').single()

    expect((await alice.from('notes').select('id').eq('id', note!.id)).data).toHaveLength(1)
    expect((await bob.from('notes').select('id').eq('id', note!.id)).data).toEqual([])
    expect((await bob.from('notes').update({ body: 'his' }).eq('id', note!.id).select('id')).data).toEqual([])
    expect((await bob.from('notes').delete().eq('id', note!.id).select('id')).data).toEqual([])
  })

  it('a table that gets row level security after the start is guarded at once', async () => {
    const sql = api.sql()
    await sql`create table if not exists public.late (id integer primary key)`
    await sql`grant select on public.late to anon`
    await sql`insert into public.late values (1) on conflict do nothing`
    await sql`notify pgrst, 'reload schema'`
    await expect.poll(async () => (await anon().from('late').select()).data).toEqual([{ id: 1 }])

    await sql`alter table public.late enable row level security`

    expect((await anon().from('late').select()).data).toEqual([])
    await sql`drop table public.late`
  })
})

describe('callers', () => {
  it('the database sees role, claims and auth functions as on hosted', async () => {
    const sub = '11111111-1111-4111-8111-111111111111'
    const token = await api.token({ sub, email: 'a@example.com', app_metadata: { roles: ['x'] } })

    const { data } = await api.client(token).rpc('who')

    expect(data).toMatchObject({ role: 'authenticated', session: 'rest', uid: sub, email: 'a@example.com' })
    expect(data.claims).toMatchObject({ app_metadata: { roles: ['x'] } })
    expect((await anon().rpc('who')).data).toMatchObject({ role: 'anon', uid: null })
    expect((await api.admin().rpc('who')).data).toMatchObject({ role: 'service_role' })
  })

  it('a secret key beside a user token acts as the user', async () => {
    const response = await raw('/rpc/who', {
      method: 'POST',
      headers: { apikey: api.stack.keys.secret, authorization: `Bearer ${await api.token()}` },
    })

    expect(await response.json()).toMatchObject({ role: 'authenticated' })
  })

  it('a sub that is no uuid fails only where it is used', async () => {
    const odd = api.client(await api.token({ sub: 'somebody' }))

    expect((await odd.from('many').select().limit(1)).error).toBeNull()
    const { error, status } = await odd.rpc('who')
    expect([error?.code, status]).toEqual(['22P02', 400])
  })

  it('tables and functions see method, path, headers and search path of the request', async () => {
    const response = await raw('/request_seen', { headers: { 'x-probe': 'seen' } })

    expect((await response.json())[0]).toMatchObject({
      method: 'GET',
      path: '/request_seen',
      probe: 'seen',
      search_path: '"public", "public", "extensions"',
      statement_timeout: '3s',
    })
  })

  it('a statement of anon ends after 3 s, one of a user after 8 s', async () => {
    const { error, status } = await anon().rpc('wait_for', { seconds: 20 })
    expect([error?.code, status]).toEqual(['57014', 500])

    const user = api.client(await api.token())
    expect((await user.from('request_seen').select('statement_timeout').single()).data?.statement_timeout).toBe('8s')
    expect((await api.admin().from('request_seen').select('statement_timeout').single()).data?.statement_timeout).toBe(
      '8s',
    )
  })

  it('a timeout set on the role counts after `reload config`', async () => {
    const sql = api.sql()
    await sql`alter role authenticated set statement_timeout = '5s'`
    await sql`notify pgrst, 'reload config'`

    const user = api.client(await api.token())
    const timeout = async () =>
      (await user.from('request_seen').select('statement_timeout').single()).data?.statement_timeout
    await expect.poll(timeout).toBe('5s')

    await sql`alter role authenticated set statement_timeout = '8s'`
    await sql`notify pgrst, 'reload config'`
    await expect.poll(timeout).toBe('8s')
  })

  it('only exposed schemas answer, and the profile header chooses', async () => {
    expect((await anon().schema('api').from('things').select()).data).toEqual([{ id: 1, name: 'one' }])
    const hidden = await anon().schema('auth').from('users').select()
    expect([hidden.status, hidden.error?.code]).toEqual([406, 'PGRST106'])
  })

  it('diff-rest-9 pgrst.db_pre_request is not called', async () => {
    const sql = api.sql('supabase_admin')
    await sql`alter role authenticator set pgrst.db_pre_request = 'public.fail_plainly'`
    await sql`notify pgrst, 'reload config'`

    expect((await anon().rpc('setting', { name: 'pgrst.db_pre_request' })).error).toBeNull()
    await sql`alter role authenticator reset pgrst.db_pre_request`
  })

  it('rows are capped by max_rows', async () => {
    expect((await anon().from('many').select('id')).data).toHaveLength(50)
  })
})

describe('errors', () => {
  it.each([
    ['P0001', 400],
    ['ZZ001', 400],
    ['23514', 400],
    ['23P01', 400],
    ['23502', 400],
    ['22023', 400],
    ['23503', 409],
    ['23505', 409],
    ['28000', 403],
    ['0P000', 403],
    ['P0002', 500],
    ['40001', 500],
    ['21000', 500],
    ['53300', 503],
    ['PT402', 402],
    ['PT409', 409],
    ['PT422', 422],
    ['42501', 401],
    ['25006', 405],
    ['42883', 404],
  ])('SQLSTATE %s answers %i with message, details and hint', async (code, status) => {
    const raised = { code, message: 'what', detail: 'why', hint: 'how' }

    const { error, status: answered } = await anon().rpc('fail', raised)

    expect(answered).toBe(status)
    expect(error).toMatchObject({ code, message: 'what', details: 'why', hint: 'how' })
  })

  it('a plain exception has null details and hint', async () => {
    const response = await post('/rpc/fail_plainly', '{}')

    expect(response.status).toBe(400)
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(await response.json()).toEqual({ code: 'P0001', message: 'plain', details: null, hint: null })
  })

  it('a violated check names its constraint', async () => {
    const { id } = await add({ label: 'with a long part' }, 'id')

    const { error, status } = await anon()
      .from('parts')
      .insert({ sample_id: id, name: 'x'.repeat(30) })

    expect([status, error?.code]).toEqual([400, '23514'])
    expect(error?.message).toContain('parts_name_is_short')
  })

  it('a function can dictate status and headers with SQLSTATE PGRST', async () => {
    const response = await post(
      '/rpc/fail',
      JSON.stringify({
        code: 'PGRST',
        message: '{"code":"teapot","message":"short and stout"}',
        detail: '{"status":418,"headers":{"x-tea":"green"}}',
        hint: '',
      }),
    )

    expect(response.status).toBe(418)
    expect(response.headers.get('x-tea')).toBe('green')
    expect(await response.json()).toMatchObject({ code: 'teapot' })
  })

  it('unknown tables, functions, columns and paths have their codes', async () => {
    expect((await anon().from('nowhere').select()).error?.code).toBe('PGRST205')
    expect((await anon().rpc('nothing')).error?.code).toBe('PGRST202')
    const column = await anon().from('samples').select('nothing')
    expect([column.status, column.error?.code, column.error?.message]).toEqual([
      400,
      '42703',
      'column samples.nothing does not exist',
    ])
    expect((await anon().from('samples').insert({ nothing: 1 })).error?.code).toBe('PGRST204')
    expect(await (await raw('/samples/1')).json()).toMatchObject({ code: 'PGRST125' })
  })

  it('a refused single-object write keeps nothing', async () => {
    const label = `twice ${crypto.randomUUID()}`
    await add({ label })
    await add({ label })

    const { error, status } = await anon().from('samples').update({ rank: 99 }).eq('label', label).select().single()

    expect([status, error?.code]).toEqual([406, 'PGRST116'])
    expect((await anon().from('samples').select('rank').eq('label', label)).data).toEqual([{ rank: 7 }, { rank: 7 }])
  })

  it('a function that sets an error status itself keeps its work', async () => {
    const response = await post('/rpc/store_then_answer', '{"status":"409"}')

    expect(response.status).toBe(409)
    expect(response.headers.get('x-answer')).toBe('yes')
    expect((await anon().from('samples').select('id').eq('label', 'stored with 409')).data).not.toEqual([])
  })

  it('a function called with GET cannot write', async () => {
    const { error, status } = await anon().rpc('write_something', {}, { get: true })

    expect([status, error?.code]).toEqual([405, '25006'])
  })
})

describe('values', () => {
  it('times, numbers, bytes, ranges and arrays read as PostgREST writes them', async () => {
    const row = await add({
      happened_at: '2026-01-02T03:04:05.123456+00:00',
      local_at: '2026-01-02T03:04:05.5',
      day: '2026-01-02',
      amount: 1.5,
      big: 42,
      ratio: 0.25,
      raw: '\\x01ff',
      tags: ['a', 'b,c'],
      span: '[1,5)',
      feeling: 'calm',
    })

    expect(row).toMatchObject({
      happened_at: '2026-01-02T03:04:05.123456+00:00',
      local_at: '2026-01-02T03:04:05.5',
      day: '2026-01-02',
      amount: 1.5,
      big: 42,
      ratio: 0.25,
      raw: '\\x01ff',
      tags: ['a', 'b,c'],
      span: '[1,5)',
      feeling: 'calm',
    })
  })

  it('a bigint keeps every digit, at the top, in an embed, in json and as an argument', async () => {
    const big = '9007199254740995'
    const created = await post('/samples?select=id,big,doc', `{"big":${big},"doc":{"n":${big}}}`, {
      prefer: 'return=representation',
    })
    const text = await created.text()
    expect(text).toContain(`"big":${big}`)
    const id = JSON.parse(text)[0].id
    await post('/parts', `{"sample_id":${id},"name":"big","big":${big}}`)

    expect(await (await raw(`/samples?select=big,doc,parts(big)&id=eq.${id}`)).text()).toBe(
      `[{"big":${big},"doc":{"n":${big}},"parts":[{"big":${big}}]}]`,
    )
    expect(await (await post('/rpc/same_big', `{"value":${big}}`)).text()).toBe(big)
  })

  it('a filter and the address of a function find exactly the number that they name', async () => {
    const label = `exact ${crypto.randomUUID()}`
    await post('/samples', `[{"label":"${label}","big":9007199254740995},{"label":"${label}","big":9007199254740996}]`)
    const found = async (filter: string) => (await raw(`/samples?select=big&label=eq.${label}&${filter}`)).text()

    for (const filter of [
      'big=eq.9007199254740995',
      'big=in.(9007199254740995,1)',
      'or=(big.eq.9007199254740995,id.eq.0)',
    ]) {
      expect(await found(filter)).toBe('[{"big":9007199254740995}]')
    }
    const { data } = await anon().from('samples').select('id').eq('label', label).in('big', ['9007199254740996'])
    expect(data).toHaveLength(1)
    expect(await (await raw('/rpc/same_big?value=9007199254740995')).text()).toBe('9007199254740995')
    const digits = '1234567890123456'
    await add({ label: digits })
    expect((await anon().from('samples').select('label').eq('label', digits).limit(1)).data).toEqual([
      { label: digits },
    ])
  })

  it('diff-rest-4 a numeric is written as a JavaScript number, without trailing zeros', async () => {
    const response = await post('/samples?select=amount', '{"amount":12345678.10}', { prefer: 'return=representation' })

    expect(await response.text()).toBe('[{"amount":12345678.1}]')
  })

  it('a number beyond those of JavaScript is kept in json with every digit', async () => {
    const large = `1${'0'.repeat(400)}`
    const sent = '{"doc":{"a":[1e400,-1e400]},"plain":{"a":1e400,"b":1e-400}}'

    const response = await post('/samples?select=doc,plain', sent, { prefer: 'return=representation' })

    expect(await response.text()).toBe(`[{"doc":{"a":[${large},-${large}]},"plain":{"a":1e400,"b":1e-400}}]`)
    expect(await (await post('/rpc/same_json', '{"value":{"a":1e400}}')).text()).toBe(`{"a":${large}}`)
  })

  it('numbers in an array keep their digits', async () => {
    const response = await post('/samples?select=tags', '{"tags":[9007199254740995,1]}', {
      prefer: 'return=representation',
    })

    expect(await response.json()).toEqual([{ tags: ['9007199254740995', '1'] }])
  })

  it('numbers that JSON cannot hold read as strings', async () => {
    expect(await add({ amount: 'NaN', ratio: 'Infinity' }, 'amount, ratio')).toEqual({
      amount: 'NaN',
      ratio: 'Infinity',
    })
  })

  it('a scalar result of a function is formatted like a column', async () => {
    const { data } = await anon().rpc('same_time', { value: '2026-01-02T03:04:05+00:00' })

    expect(data).toBe('2026-01-02T03:04:05+00:00')
  })

  it.each([
    ['object', { a: [1, 'x', null] }],
    ['array', [1, { b: 2 }]],
    ['string', 'bare "string"'],
    ['number', 7],
    ['boolean', true],
  ])('jsonb of type %s arrives as itself in columns and arguments', async (type, value) => {
    expect((await anon().rpc('kind_of', { value })).data).toBe(type)
    expect((await anon().rpc('same_json', { value })).data).toEqual(value)
    expect(await add({ doc: value, plain: value }, 'doc, plain')).toEqual({ doc: value, plain: value })
  })

  it('a null for jsonb is the null of SQL', async () => {
    expect((await anon().rpc('kind_of', { value: null })).data).toBeNull()
    expect(await add({ doc: null }, 'doc')).toEqual({ doc: null })
  })

  it('a single unnamed json argument takes the whole body', async () => {
    expect(await (await post('/rpc/body_kind', '{"a":1}')).json()).toBe('object')
    expect(await (await post('/rpc/body_kind', '[1]')).json()).toBe('array')
  })

  it('Prefer timezone moves the offset', async () => {
    const response = await raw('/request_seen?select=at', { headers: { prefer: 'timezone=Asia/Kolkata' } })

    expect((await response.json())[0].at).toMatch(/\+05:30$/)
  })
})

describe('writes', () => {
  it('single() of an insert with a cast, an embed or a json path is one object', async () => {
    const cast = await anon()
      .from('samples')
      .insert({ label: 'cast', doc: { a: 1 } })
      .select('label, rank::text')
      .single()
    expect(cast).toMatchObject({ status: 201, data: { label: 'cast', rank: '7' } })

    const path = await anon()
      .from('samples')
      .insert({ label: 'path', doc: { a: 1 } })
      .select('label, doc->a')
      .single()
    expect(path.data).toEqual({ label: 'path', a: 1 })

    const embed = await anon().from('samples').insert({ label: 'embed' }).select('label, parts(name)').single()
    expect(embed.data).toEqual({ label: 'embed', parts: [] })
  })

  it('diff-rest-1 an update or delete with a limit is refused', async () => {
    const label = `limited ${crypto.randomUUID()}`
    await add({ label })
    await add({ label })

    const removed = await raw(`/samples?label=eq.${label}&limit=1`, { method: 'DELETE' })
    const changed = await raw(`/samples?label=eq.${label}&limit=1`, { method: 'PATCH', body: '{"rank":1}' })

    expect([removed.status, (await removed.json()).code]).toEqual([400, 'PGRST100'])
    expect(changed.status).toBe(400)
    expect((await anon().from('samples').select('rank').eq('label', label)).data).toEqual([{ rank: 7 }, { rank: 7 }])
  })

  it('Prefer tx=rollback is ignored', async () => {
    const label = `kept ${crypto.randomUUID()}`

    await post('/samples', JSON.stringify({ label }), { prefer: 'tx=rollback, return=minimal' })

    expect((await anon().from('samples').select('label').eq('label', label)).data).toEqual([{ label }])
  })

  it('a key that one row of a bulk insert lacks is null there', async () => {
    const { data } = await anon()
      .from('samples')
      .insert([{ label: 'with', day: '2026-01-02' }, { label: 'without' }])
      .select('label, day')
    expect(data).toEqual([
      { label: 'with', day: '2026-01-02' },
      { label: 'without', day: null },
    ])

    const { error } = await anon()
      .from('samples')
      .insert([{ label: 'a', rank: 1 }, { label: 'b' }])
    expect(error?.code).toBe('23502')
  })

  it('with defaultToNull: false the lacking key takes the default', async () => {
    const label = `default ${crypto.randomUUID()}`

    const { error } = await anon()
      .from('samples')
      .insert([{ label, rank: 1 }, { label }], { defaultToNull: false })

    expect(error).toBeNull()
    expect((await anon().from('samples').select('rank').eq('label', label).order('rank')).data).toEqual([
      { rank: 1 },
      { rank: 7 },
    ])
  })

  it('diff-rest-2 the answer to such an insert shows null where the row holds the default', async () => {
    const { data } = await anon()
      .from('samples')
      .insert([{ label: 'one', rank: 1 }, { label: 'two' }], { defaultToNull: false })
      .select('rank')

    expect(data).toEqual([{ rank: 1 }, { rank: null }])
  })

  it('diff-rest-3 a composite column takes its text form only', async () => {
    expect(
      (
        await anon()
          .from('samples')
          .insert({ pair: { name: 'x', size: 1 } })
      ).error?.code,
    ).toBe('22P02')
    expect((await anon().from('samples').insert({ pair: '(x,1)' })).error).toBeNull()
  })

  it('upsert, count, csv and maxAffected work', async () => {
    const { id } = await add({ label: 'to upsert' }, 'id')
    await anon().from('parts').insert({ sample_id: id, name: 'n' })

    const upserted = await anon()
      .from('parts')
      .upsert({ sample_id: id, name: 'n', big: 3 }, { onConflict: 'sample_id,name' })
      .select('big')
    expect(upserted.data).toEqual([{ big: 3 }])
    expect((await anon().from('many').select('*', { count: 'exact', head: true })).count).toBe(200)
    expect((await anon().from('many').select('id').limit(2).csv()).data).toBe('id\n2\n4')
    const many = await raw('/samples?id=gt.0', {
      method: 'PATCH',
      body: '{"rank":3}',
      headers: { 'content-type': 'application/json', prefer: 'handling=strict, max-affected=1' },
    })
    expect((await many.json()).code).toBe('PGRST124')
  })

  it('diff-rest-10 an insert of more than 65,534 values is refused, one of fewer stored', async () => {
    const rows = (count: number) =>
      Array.from({ length: count }, (_, i) => ({
        ...{ label: 'bulk', rank: i, day: '2026-01-02', big: i, amount: i, ratio: i },
        ...{ happened_at: '2026-01-02T03:04:05Z', local_at: '2026-01-02T03:04:05', doc: i, plain: i },
      }))

    expect((await anon().from('samples').insert(rows(6_500))).status).toBe(201)
    const { error, status } = await anon().from('samples').insert(rows(6_600))

    expect([status, error?.code]).toEqual([413, '54000'])
  })

  it('20 parallel inserts all land', async () => {
    const label = `parallel ${crypto.randomUUID()}`

    const results = await Promise.all(Array.from({ length: 20 }, () => anon().from('samples').insert({ label })))

    expect(results.map(({ status }) => status)).toEqual(Array(20).fill(201))
    expect((await anon().from('samples').select('id', { count: 'exact', head: true }).eq('label', label)).count).toBe(
      20,
    )
  })
})

describe('reads', () => {
  it('embeds, inner joins, spreads and filters on embeds work', async () => {
    const { id } = await add({ label: 'whole' }, 'id')
    await anon()
      .from('parts')
      .insert([
        { sample_id: id, name: 'left' },
        { sample_id: id, name: 'right' },
      ])

    const inner = await anon().from('samples').select('label, parts!inner(name)').eq('id', id).eq('parts.name', 'left')
    expect(inner.data).toEqual([{ label: 'whole', parts: [{ name: 'left' }] }])
    const spread = await anon().from('parts').select('name, ...samples(label)').eq('sample_id', id).order('name')
    expect(spread.data).toEqual([
      { name: 'left', label: 'whole' },
      { name: 'right', label: 'whole' },
    ])
  })

  it('ranges beyond the end are 416, single objects that are absent 406', async () => {
    const range = await anon().from('many').select('id', { count: 'exact' }).range(1000, 1001)
    expect([range.status, range.error?.code]).toEqual([416, 'PGRST103'])
    const one = await anon().from('many').select().eq('id', 1).single()
    expect([one.status, one.error?.code]).toEqual([406, 'PGRST116'])
  })

  it.each([
    ['limit=-1', 416, 'PGRST103'],
    ['limit=-9223372036854775809', 416, 'PGRST103'],
    ['offset=9223372036854775808', 400, '22003'],
    ['offset=99999999999999999999999', 400, '22003'],
    ['limit=1&offset=9223372036854775808', 400, '22003'],
  ])('%s is refused', async (query, status, code) => {
    const response = await raw(`/many?select=id&${query}`)

    expect([response.status, (await response.json()).code]).toEqual([status, code])
  })

  it.each([
    ['offset=9223372036854775807', []],
    ['offset=9007199254740993&limit=5', []],
    ['limit=9223372036854775807&offset=199', [{ id: 400 }]],
    // As PostgREST: what is no number is no limit, and before the first row is nothing.
    ['offset=-1&limit=2', [{ id: 2 }]],
    ['limit=1;x&id=eq.2', [{ id: 2 }]],
    ['offset=x&id=eq.2', [{ id: 2 }]],
  ])('%s gives the rows that PostgREST gives', async (query, rows) => {
    expect(await (await raw(`/many?select=id&order=id&${query}`)).json()).toEqual(rows)
  })

  it('an offset beyond all rows of an embed leaves it empty, one beyond numbers is refused', async () => {
    const { id } = await add({ label: 'with parts' }, 'id')
    await anon().from('parts').insert({ sample_id: id, name: 'n' })
    const embed = (offset: string) => raw(`/samples?select=parts(name)&id=eq.${id}&parts.offset=${offset}`)

    expect(await (await embed('9223372036854775807')).json()).toEqual([{ parts: [] }])
    expect((await embed('9223372036854775808')).status).toBe(400)
  })

  it('a new function is found after the schema is reloaded, and a changed table does not break its statements', async () => {
    const sql = api.sql()
    await sql`create table public.grows (id integer primary key)`
    await sql`grant select on public.grows to anon`
    await sql`insert into public.grows values (1)`
    await sql`notify pgrst, 'reload schema'`
    const all = async () => (await anon().from('grows').select('*')).data
    await expect.poll(all).toEqual([{ id: 1 }])
    for (let i = 0; i < 30; i++) await all()

    await sql`alter table public.grows add column more text default 'x'`

    expect(await Promise.all([all(), all(), all()])).toEqual(Array(3).fill([{ id: 1, more: 'x' }]))
    await sql`drop table public.grows`
    await expect.poll(async () => (await anon().from('grows').select()).error?.code).toBe('PGRST205')
  })

  it('diff-rest-6 only the secret key reads the description of the API, which names no table', async () => {
    expect((await raw('/')).status).toBe(403)
    const described = await raw('/', { headers: { apikey: api.stack.keys.secret } })
    expect(described.status).toBe(200)
    expect((await described.json()).paths).toBeUndefined()
  })

  it('diff-rest-7 a table embedded in itself without a hint is read as its children', async () => {
    const { data } = await anon().from('tree').select('name, tree(name)').eq('id', 1)
    expect(data).toEqual([{ name: 'root', tree: [{ name: 'leaf' }] }])

    const hinted = await anon().from('tree').select('name, parent:parent_id(name)').eq('id', 2)
    expect(hinted.data).toEqual([{ name: 'leaf', parent: { name: 'root' } }])
  })

  it('diff-rest-11 tables with keys to two others link them though their primary keys do not hold both', async () => {
    const unnamed = await anon().from('pets').select('id, keepers(name)')
    expect([unnamed.status, unnamed.error?.code]).toEqual([300, 'PGRST201'])

    const named = await anon().from('pets').select('id, keepers!pets_keeper_id_fkey(name)')
    expect(named.data).toEqual([{ id: 1, keepers: { name: 'Ann' } }])
  })

  it('embeds from and to views need no hint', async () => {
    for (const [from, select] of [
      ['named_parts', 'name, samples(label)'],
      ['named_parts', 'name, named_samples(label)'],
      ['named_samples', 'label, parts(name)'],
      ['samples', 'label, named_parts(name)'],
    ] as const) {
      expect((await anon().from(from).select(select).limit(1)).error).toBeNull()
    }
  })

  it('diff-rest-8 a timeout set on a function does not count', async () => {
    const { error } = await anon().rpc('wait_patiently')

    expect(error?.code).toBe('57014')
  })
})

describe('bad input', () => {
  const count = async () => (await anon().from('samples').select('id', { count: 'exact', head: true })).count

  it.each([
    ['half an object', '{"label": "x"', 400, 'PGRST102'],
    ['an empty body', '', 400, 'PGRST102'],
    ['a bare string', '"x"', 400, 'PGRST102'],
    ['a NUL in a text', '{"label":"a\\u0000b"}', 400, '22P05'],
    ['half a surrogate pair', '{"label":"a\\ud800b"}', 400, '22P02'],
    ['a NUL deep in json', '{"doc":{"a":["\\u0000"]}}', 400, '22P05'],
    ['a word for a number', '{"rank":"many"}', 400, '22P02'],
    ['an unknown column', '{"nothing":1}', 400, 'PGRST204'],
    ['a number that is too large', '{"rank":99999999999}', 400, '22003'],
    ['a number beyond those of json', '{"doc":{"a":1e200000}}', 400, '22003'],
    ['a number beyond those of float8', '{"ratio":1e400}', 400, '22003'],
    ['a number below those of float8', '{"ratio":1e-400}', 400, '22003'],
    ['a number beyond those of its numeric, in one row of two', '[{"amount":1},{"amount":1e400}]', 400, '22003'],
  ])('%s is refused and leaves nothing', async (_what, body, status, code) => {
    const before = await count()

    const response = await post('/samples', body)

    expect([response.status, (await response.json()).code]).toEqual([status, code])
    expect(await count()).toBe(before)
  })

  it('bytes that are no UTF-8 are refused', async () => {
    const response = await raw('/samples', {
      method: 'POST',
      body: new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]),
      headers: { 'content-type': 'application/json' },
    })

    expect([response.status, (await response.json()).code]).toEqual([400, 'PGRST102'])
  })

  it('diff-rest-5 2 MB are stored, more than 10 MB refused with 413', async () => {
    const text = 'x'.repeat(2 * 1024 * 1024)
    expect((await add({ label: text }, 'label')).label).toBe(text)

    const response = await post('/samples', JSON.stringify({ label: 'x'.repeat(11 * 1024 * 1024) }))

    expect(response.status).toBe(413)
    expect((await response.json()).code).toBe('413')
  })

  it('NUL, broken escapes and broken UTF-8 in the address are 400', async () => {
    for (const path of ['/samples?label=eq.%00', '/samples?label=eq.%ff', '/%ff', '/samples?select=%00']) {
      const response = await raw(path)
      expect([path, response.status]).toEqual([path, 400])
    }
  })

  it('SQL and HTML are text', async () => {
    const label = `${crypto.randomUUID()}'; drop table samples; -- <script>alert("x")</script> \\ $1 %s`

    expect((await add({ label }, 'label')).label).toBe(label)
    expect((await anon().from('samples').select('label').eq('label', label)).data).toEqual([{ label }])
  })

  it('methods that PostgREST does not know are 405', async () => {
    const response = await raw('/samples', { method: 'PROPFIND' })

    expect([response.status, (await response.json()).code]).toEqual([405, 'PGRST117'])
  })

  it('an unacceptable content type or accept header is refused', async () => {
    expect((await post('/samples', '<a/>', { 'content-type': 'application/xml' })).status).toBe(400)
    expect((await raw('/samples', { headers: { accept: 'image/png' } })).status).toBe(406)
  })

  it('800 ids in a filter pass, an address beyond 48 KiB is 414', async () => {
    const ids = Array.from({ length: 800 }, () => crypto.randomUUID())
    const user = api.client(await api.token())
    expect((await user.from('notes').select('id').in('id', ids)).error).toBeNull()

    expect((await raw(`/many?body=eq.${'x'.repeat(50_000)}`)).status).toBe(414)
  })
})
