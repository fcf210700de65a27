import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  admin,
  anonymous,
  database,
  type Person,
  publishableKey,
  session,
  signUp,
  until,
  url,
} from './support/local.ts'

type Json = Record<string, unknown>
const add = (person: Person, data: unknown, collection = 'notes') =>
  person.client
    .from('documents')
    .insert({ collection, data } as never)
    .select()
    .single()
const update = (person: Person, id: string, expected_version: number, data: Json) =>
  person.client.rpc('update_document', { id, expected_version, data } as never)
const all = async (person: Person) => (await person.client.from('documents').select().order('id')).data!

/** A request as no client library would send it. */
const post = (person: Person, path: string, body: string, headers: Record<string, string> = {}) =>
  fetch(`${url}/rest/v1/${path}`, {
    method: 'POST',
    headers: {
      apikey: publishableKey,
      authorization: `Bearer ${person.token}`,
      'content-type': 'application/json',
      ...headers,
    },
    body,
  })

describe('documents', () => {
  it('S-04 are created, read, updated and deleted by their owner', async () => {
    const ada = await signUp()

    const { data: created } = await add(ada, { title: 'first' })
    const { data: updated } = await update(ada, created!.id, 1, { title: 'second' })
    const { data: read } = await ada.client.from('documents').select().eq('id', created!.id).single()
    await ada.client.from('documents').delete().eq('id', created!.id)

    expect(created).toMatchObject({ owner_id: ada.id, collection: 'notes', data: { title: 'first' }, version: 1 })
    expect(updated).toMatchObject({ id: created!.id, data: { title: 'second' }, version: 2 })
    expect(read).toEqual(updated)
    expect(await all(ada)).toEqual([])
  })

  it('S-04 are listed by offset and by key, in the order of their creation', async () => {
    const ada = await signUp()
    const rows = Array.from({ length: 25 }, (_, n) => ({ collection: 'notes', data: { n } }))
    for (const row of rows.slice(0, 5)) await ada.client.from('documents').insert(row)
    await ada.client.from('documents').insert(rows.slice(5))
    await add(ada, { n: -1 }, 'other')
    const list = () => ada.client.from('documents').select().eq('collection', 'notes').order('id')

    const byOffset: Json[] = []
    for (let at = 0; at < 25; at += 10) byOffset.push(...(await list().range(at, at + 9)).data!)
    const byKey: Json[] = []
    for (let last = '00000000-0000-0000-0000-000000000000'; ; ) {
      const { data } = await list().gt('id', last).limit(10)
      if (!data!.length) break
      byKey.push(...data!)
      last = data!.at(-1)!.id
    }

    expect(byOffset).toHaveLength(25)
    expect(byKey).toEqual(byOffset)
    expect(byKey.slice(0, 5).map((row) => (row.data as { n: number }).n)).toEqual([0, 1, 2, 3, 4])
  })

  it('S-04 are paged by key without a gap or a repetition while others are added', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 }), async (sizes) => {
        const ada = await signUp()
        for (let n = 0; n < 8; n++) await add(ada, { n })
        const seen: string[] = []
        let last = '00000000-0000-0000-0000-000000000000'
        for (const size of [...sizes, 100]) {
          const { data } = await ada.client.from('documents').select('id').order('id').gt('id', last).limit(size)
          seen.push(...data!.map((row) => row.id))
          last = seen.at(-1) ?? last
          await add(ada, { late: true })
        }
        const stored = (await all(ada)).map((row) => row.id)
        expect(seen).toEqual(stored.slice(0, seen.length))
        expect(seen.length).toBe(stored.length - 1)
      }),
      { numRuns: 4 },
    )
  })

  it('S-04 refuse a change of an older version, and say so by a stable code', async () => {
    const ada = await signUp()
    const { data: document } = await add(ada, { n: 1 })
    await update(ada, document!.id, 1, { n: 2 })

    const stale = await update(ada, document!.id, 1, { n: 3 })

    expect([stale.status, stale.error?.message]).toEqual([409, 'document_version_conflict'])
    expect((await all(ada))[0]).toMatchObject({ data: { n: 2 }, version: 2 })
  })

  it('S-24 let one of two changes that overlap win, whole', async () => {
    const ada = await signUp()
    const { data: document } = await add(ada, { n: 1 })
    const holder = session()
    const claims = JSON.stringify({ sub: ada.id, role: 'authenticated' })
    await holder`begin`
    await holder`select set_config('request.jwt.claims', ${claims}, true), set_config('role', 'authenticated', true)`
    await holder`select public.update_document(${document!.id}, 1, '{"n": 2}')`

    const waiting = update(ada, document!.id, 1, { n: 3 }).then((result) => result)
    await until(
      async () =>
        (await database()`select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'update_document'`)
          .length,
    )
    await holder`commit`

    expect((await waiting).error?.message).toBe('document_version_conflict')
    expect((await all(ada))[0]).toMatchObject({ data: { n: 2 }, version: 2 })
  })

  it('S-24 are written with their event or not at all', async () => {
    const ada = await signUp()

    const { error } = await ada.client.from('documents').insert([
      { collection: 'notes', data: { n: 1 } },
      { collection: 'Not a name', data: { n: 2 } },
    ])

    expect(error?.code).toBe('23514')
    expect(await all(ada)).toEqual([])
    const events = await database()`select from private.outbox where user_id = ${ada.id} and kind like 'document.%'`
    expect(events).toHaveLength(0)
  })

  it('announce document.created with the id', async () => {
    const ada = await signUp()

    const { data: document } = await add(ada, { secret: 'stays here' })

    const events = await database()`
      select subject_id, payload from private.outbox where user_id = ${ada.id} and kind = 'document.created'`
    expect(events).toEqual([
      { subject_id: document!.id, payload: { id: document!.id, version: 1, collection: 'notes' } },
    ])
  })

  it('S-04 of another person look absent', async () => {
    const [ada, mallory] = await Promise.all([signUp(), signUp()])
    const { data: document } = await add(ada, { n: 1 })
    const id = document!.id

    const read = await mallory.client.from('documents').select().eq('id', id)
    const changed = await update(mallory, id, 1, { n: 2 })
    const unknown = await update(mallory, randomUUID(), 1, { n: 2 })
    const removed = await mallory.client.from('documents').delete().eq('id', id).select()
    const forged = await mallory.client
      .from('documents')
      .insert({ owner_id: ada.id, collection: 'notes', data: {} } as never)

    expect([read.data, removed.data]).toEqual([[], []])
    expect([changed.status, changed.error]).toEqual([404, unknown.error])
    expect(changed.error?.message).toBe('document_not_found')
    expect(forged.error?.code).toBe('42501')
    expect((await all(ada))[0]).toMatchObject({ data: { n: 1 }, version: 1 })
  })

  it('S-04 are closed to a visitor, and the service only reads', async () => {
    const ada = await signUp()
    const { data: document } = await add(ada, {})

    const visitor = await anonymous().from('documents').select()
    const service = await admin().from('documents').select('id').eq('id', document!.id)
    const written = await admin().from('documents').delete().eq('id', document!.id)

    expect(visitor.status).toBe(401)
    expect(service.data).toEqual([{ id: document!.id }])
    expect(written.error?.code).toBe('42501')
  })
})

describe('bad input', () => {
  it('S-04 keeps SQL, HTML and any script as they were sent', async () => {
    const ada = await signUp()
    const data = {
      a: "'; drop table documents; --",
      '<img src=x>': '<script>alert(1)</script>',
      z: '👩‍🚀 ‮ \u0007 العربية',
    }

    const { data: document } = await add(ada, data)

    expect(document!.data).toEqual(data)
  })

  it.each([
    ['NUL', '{"collection":"notes","data":{"a":"x\\u0000y"}}', '22P05'],
    ['a lone high surrogate', '{"collection":"notes","data":{"a":"\\ud800"}}', '22P02'],
    ['a lone low surrogate', '{"collection":"notes","data":{"a":"\\udc00x"}}', '22P02'],
    ['an array', '{"collection":"notes","data":[1]}', '23514'],
    ['text for an object', '{"collection":"notes","data":"x"}', '23514'],
    ['null', '{"collection":"notes","data":null}', '23502'],
    ['no data', '{"collection":"notes"}', '23502'],
    ['a collection of another type', '{"collection":{"a":1},"data":{}}', '23514'],
    ['a collection over 63 characters', `{"collection":"${'a'.repeat(64)}","data":{}}`, '23514'],
    ['an unknown field', '{"collection":"notes","data":{},"colour":"red"}', 'PGRST204'],
    ['malformed JSON', '{"collection":', 'PGRST102'],
    ['an empty body', '', 'PGRST102'],
    ['33 levels', `{"collection":"notes","data":${'{"a":'.repeat(32)}{}${'}'.repeat(32)}}`, '23514'],
    ['300 KiB', JSON.stringify({ collection: 'notes', data: { a: 'x'.repeat(300 * 1024) } }), '23514'],
  ])('S-04 refuses %s with a stable code and leaves no trace', async (_what, body, code) => {
    const ada = await signUp()

    const response = await post(ada, 'documents', body)

    expect([response.status, (await response.json()).code]).toEqual([400, code])
    expect(await all(ada)).toEqual([])
  })

  it.each([
    ['an id that is none', 'rpc/update_document', '{"id":"x","expected_version":1,"data":{}}', 400, '22P02'],
    [
      'a version that is none',
      'rpc/update_document',
      `{"id":"${randomUUID()}","expected_version":"x","data":{}}`,
      400,
      '22P02',
    ],
    ['a missing argument', 'rpc/update_document', '{"data":{}}', 404, 'PGRST202'],
    [
      'an unknown argument',
      'rpc/update_document',
      `{"id":"${randomUUID()}","expected_version":1,"data":{},"x":1}`,
      404,
      'PGRST202',
    ],
  ])('S-04 refuses a change with %s', async (_what, path, body, status, code) => {
    const ada = await signUp()

    const response = await post(ada, path, body)

    expect([response.status, (await response.json()).code]).toEqual([status, code])
  })

  it('S-04 refuses a filter with a wrong id and a body of 2 MB', async () => {
    const ada = await signUp()

    const filter = await ada.client.from('documents').select().eq('id', "x' or '1'='1")
    const large = await post(
      ada,
      'documents',
      JSON.stringify({ collection: 'notes', data: { a: 'x'.repeat(2_000_000) } }),
    )

    expect([filter.status, filter.error?.code]).toEqual([400, '22P02'])
    expect(large.status).toBeGreaterThanOrEqual(400)
    expect(large.status).toBeLessThan(500)
    expect(await all(ada)).toEqual([])
  })
})

describe('filters under row level security', () => {
  const undo = new Error('undo')

  /** The plan of a statement for a signed-in person among many others with documents; what it makes is undone. */
  const explain = async (person: Person, statement: string) => {
    const sql = session('supabase_admin')
    const claims = JSON.stringify({ sub: person.id, role: 'authenticated' })
    let plan = ''
    await sql
      .begin(async (tx) => {
        await tx.unsafe(`
          set local session_replication_role = replica;
          insert into public.documents (owner_id, collection, data)
            select case when n % 10 = 0 then '${person.id}' else md5((n % 200)::text)::uuid end,
              (array['notes', 'drafts'])[1 + n / 10 % 2], '{"a": 1}'
              from generate_series(1, 10000) as n;
          analyze public.documents;
          set local session_replication_role = origin;
          -- Few rows are read and sorted as fast as found in order, and of people there are few here.
          set local enable_bitmapscan = off;
          set local enable_seqscan = off`)
        const [cursor] = await tx`
          select id from public.documents where owner_id = ${person.id} and collection = 'notes' order by id offset 100`
        await tx`select set_config('request.jwt.claims', ${claims}, true), set_config('role', 'authenticated', true)`
        plan = (await tx.unsafe(`explain (costs off) ${statement.replace('$cursor', cursor!.id)}`))
          .map((row) => row['QUERY PLAN'])
          .join('\n')
        throw undo
      })
      .catch((error) => {
        if (error !== undo) throw error
      })
    return plan
  }

  it('a page of a collection is one range of one index, without a sort', async () => {
    const plan = await explain(
      await signUp(),
      `select * from public.documents where collection = 'notes' and id > '$cursor' order by id limit 50`,
    )

    expect(plan).toMatch(/Index Scan using documents_by_owner_and_collection/)
    expect(plan).toMatch(/Index Cond: \(\(owner_id = .*\) AND \(collection = 'notes'::text\) AND \(id > /)
    expect(plan).not.toMatch(/Sort|Seq Scan/)
  })

  it('a filter inside of data reads the rows of the owner only', async () => {
    const plan = await explain(await signUp(), `select * from public.documents where data @> '{"a": 1}'`)

    expect(plan).toMatch(/Index Cond: \(owner_id = /)
    expect(plan).not.toMatch(/Seq Scan/)
  })

  it.each([
    ['did', 'profiles_did_unique', "did = 'did:web:x'"],
    ['username', 'profiles_username_unique', "username = 'x'"],
    ['id', 'profiles_pkey', `id = '${randomUUID()}'`],
  ])('a profile is found by %s through its index, and blocks are asked once', async (_column, index, filter) => {
    const plan = await explain(await signUp(), `select * from public.profiles where ${filter}`)

    expect(plan).toContain(`using ${index}`)
    expect(plan.match(/blocked_user_ids|SubPlan/g)!.length).toBeGreaterThan(0)
    expect(plan).toMatch(/hashed SubPlan/)
  })
})
