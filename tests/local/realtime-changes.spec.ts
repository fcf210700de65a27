import { randomUUID } from 'node:crypto'
import type { RealtimePostgresChangesPayload, SupabaseClient } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { secretKey, superuser, until } from '../support/local.ts'
import { disconnectAll, join, realtimeClient, received, tokenOf } from '../support/realtime.ts'

type Change = RealtimePostgresChangesPayload<Record<string, unknown>>
type Request = { event?: string; schema?: string; table?: string; filter?: string; select?: string[] }

const schema = 'realtime_spec'
const sql = superuser()

beforeAll(async () => {
  await sql.unsafe(`
    drop schema if exists ${schema} cascade;
    create schema ${schema};
    grant usage on schema ${schema} to anon, authenticated, service_role;

    create table ${schema}.notes (id bigint generated always as identity primary key, owner_id uuid, body text);
    alter table ${schema}.notes enable row level security;
    create policy "owners can read" on ${schema}.notes for select to authenticated
      using (owner_id = (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid);

    create type ${schema}.mood as enum ('low', 'high');
    create table ${schema}.things (
      id int primary key, label text, code varchar(20), amount numeric, done boolean, tags text[], mood ${schema}.mood,
      data jsonb, at timestamptz, raw bytea, secret text);
    create table ${schema}.full_notes (like ${schema}.notes including all);
    alter table ${schema}.full_notes replica identity full;
    alter table ${schema}.full_notes enable row level security;
    create policy "all can read" on ${schema}.full_notes for select to authenticated using (true);
    create table ${schema}.full_open (id int primary key, body text);
    alter table ${schema}.full_open replica identity full;
    create table ${schema}.keyless (body text);
    alter table ${schema}.keyless replica identity full;
    create table ${schema}.hidden_key (id int primary key, body text);
    create table ${schema}.unpublished (id int primary key);

    grant select on all tables in schema ${schema} to authenticated, service_role;
    revoke select on ${schema}.things, ${schema}.hidden_key from authenticated;
    grant select (id, label, code, amount, done, tags, mood, data, at, raw) on ${schema}.things to authenticated;
    grant select (body) on ${schema}.hidden_key to authenticated;
    alter publication supabase_realtime add table ${schema}.notes, ${schema}.things, ${schema}.full_notes,
      ${schema}.full_open, ${schema}.keyless, ${schema}.hidden_key;
  `)
})

afterEach(disconnectAll)
afterAll(() => sql.unsafe(`drop schema ${schema} cascade`))

/** A channel whose subscription is active, or was refused: `system` says which. */
async function subscribe(client: SupabaseClient, ...requests: Request[]) {
  const channel = client.channel(`changes:${randomUUID()}`)
  const changes: Change[] = []
  const system = received(channel, 'system')
  for (const request of requests) {
    channel.on('postgres_changes' as never, { event: '*', schema, ...request } as never, (change: Change) =>
      changes.push(change),
    )
  }
  await join(channel)
  await until(() => system.length)
  return { channel, changes, system: system as { status: string; message: string }[] }
}

const asUser = async (sub = randomUUID()) => ({ sub, client: await realtimeClient({ token: await tokenOf({ sub }) }) })

describe('postgres_changes', () => {
  it('carries inserts, updates and deletes with their values and times', async () => {
    const { sub, client } = await asUser()
    const { changes, system } = await subscribe(client, { table: 'notes' })
    const [row] = await sql`insert into ${sql(schema)}.notes (owner_id, body) values (${sub}, 'first') returning id`
    await until(() => changes.length === 1)
    await sql`update ${sql(schema)}.notes set body = 'second' where id = ${row!.id}`
    await until(() => changes.length === 2)
    await sql`delete from ${sql(schema)}.notes where id = ${row!.id}`
    await until(() => changes.length === 3)

    const id = Number(row!.id)
    expect(system).toEqual([expect.objectContaining({ status: 'ok', message: 'Subscribed to PostgreSQL' })])
    expect(changes).toEqual([
      expect.objectContaining({
        eventType: 'INSERT',
        new: { id, owner_id: sub, body: 'first' },
        old: {},
        errors: null,
      }),
      expect.objectContaining({ eventType: 'UPDATE', new: { id, owner_id: sub, body: 'second' }, old: { id } }),
      expect.objectContaining({ eventType: 'DELETE', new: {}, old: { id } }),
    ])
    expect(changes[0]).toMatchObject({ schema, table: 'notes' })
    expect(changes[0]!.commit_timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    expect(Math.abs(Date.now() - Date.parse(changes[0]!.commit_timestamp))).toBeLessThan(60_000)
  })

  it('shows a row to those whom its policies let read it', async () => {
    const [alice, bob] = [await asUser(), await asUser()]
    const server = await realtimeClient({ key: secretKey })
    const toAlice = await subscribe(alice.client, { table: 'notes', event: 'INSERT' })
    const toBob = await subscribe(bob.client, { table: 'notes', event: 'INSERT' })
    const toServer = await subscribe(server, { table: 'notes', event: 'INSERT' })

    for (const { sub } of [alice, bob, alice]) {
      await sql`insert into ${sql(schema)}.notes (owner_id, body) values (${sub}, 'x')`
    }

    await until(() => toServer.changes.length === 3)
    expect(toAlice.changes.map((change) => change.new)).toMatchObject([
      { owner_id: alice.sub },
      { owner_id: alice.sub },
    ])
    expect(toBob.changes.map((change) => change.new)).toMatchObject([{ owner_id: bob.sub }])
  })

  it('tells an anonymous visitor nothing about a table that only users can read', async () => {
    const { changes } = await subscribe(await realtimeClient(), { table: 'notes' })
    const { sub, client } = await asUser()
    const owner = await subscribe(client, { table: 'notes' })

    await sql`insert into ${sql(schema)}.notes (owner_id) values (${sub})`

    await until(() => owner.changes.length)
    expect(changes).toMatchObject([{ new: {}, errors: ['Error 401: Unauthorized'] }])
  })

  it('asks the policies after the commit, so a row that is gone by then is not shown', async () => {
    const { sub, client } = await asUser()
    const { changes } = await subscribe(client, { table: 'notes' })

    await sql.begin(async (tx) => {
      await tx`insert into ${sql(schema)}.notes (owner_id, body) values (${sub}, 'short life')`
      await tx`delete from ${sql(schema)}.notes where owner_id = ${sub}`
    })
    await sql`insert into ${sql(schema)}.notes (owner_id, body) values (${sub}, 'long life')`

    await until(() => changes.length === 2)
    expect(changes.map((change) => change.eventType)).toEqual(['DELETE', 'INSERT'])
  })

  it('keeps the order of a transaction and shows nothing of one that is rolled back', async () => {
    const { sub, client } = await asUser()
    const { changes } = await subscribe(client, { table: 'notes', event: 'INSERT' })

    await sql
      .begin(async (tx) => {
        await tx`insert into ${sql(schema)}.notes (owner_id, body) values (${sub}, 'never')`
        throw new Error('rolled back')
      })
      .catch(() => {})
    await sql`insert into ${sql(schema)}.notes (owner_id, body) select ${sub}, n::text from generate_series(1, 200) n`

    await until(() => changes.length === 200)
    expect(changes.map((change) => (change.new as { body: string }).body)).toEqual(
      Array.from({ length: 200 }, (_, index) => String(index + 1)),
    )
  })

  it('carries values as the client expects each type, and only columns that the role may read', async () => {
    const { client } = await asUser()
    const { changes } = await subscribe(client, { table: 'things' })

    await sql`insert into ${sql(schema)}.things values (1, 'a "b" \\ ü', 'c', 12.50, true, '{x,"y,z"}', 'high',
      '{"k": [1, null]}', '2026-01-02 03:04:05.678901+02', '\\x00ff', 'hidden')`

    await until(() => changes.length)
    expect(changes[0]!.new).toEqual({
      id: 1,
      label: 'a "b" \\ ü',
      code: 'c',
      amount: 12.5,
      done: true,
      tags: ['x', 'y,z'],
      mood: 'high',
      data: { k: [1, null] },
      at: '2026-01-02T01:04:05.678901+00:00',
      raw: '00ff',
    })
    await sql`delete from ${sql(schema)}.things`
  })

  it('limits a row to the selected columns and its key', async () => {
    const { client } = await asUser()
    const { changes } = await subscribe(client, { table: 'things', select: ['label'], event: 'INSERT' })

    await sql`insert into ${sql(schema)}.things (id, label, done) values (2, 'seen', true)`

    await until(() => changes.length)
    expect(changes[0]!.new).toEqual({ id: 2, label: 'seen' })
    await sql`delete from ${sql(schema)}.things`
  })

  it('carries old values with a full replica identity, of a protected and deleted row only its key', async () => {
    const { client } = await asUser()
    const guarded = await subscribe(client, { table: 'full_notes' })
    const open = await subscribe(client, { table: 'full_open' })

    for (const table of ['full_notes', 'full_open']) {
      const id = table === 'full_open' ? 'id, ' : ''
      await sql.unsafe(`insert into ${schema}.${table} (${id}body) values (${id && '1, '}'old')`)
      await sql.unsafe(`update ${schema}.${table} set body = 'new'`)
      await sql.unsafe(`delete from ${schema}.${table}`)
    }

    await until(() => open.changes.length === 3 && guarded.changes.at(-1)?.eventType === 'DELETE')
    const [updated, deleted] = open.changes.slice(1)
    expect([updated!.old, deleted!.old]).toEqual([
      { id: 1, body: 'old' },
      { id: 1, body: 'new' },
    ])
    expect(guarded.changes.at(-1)!.old).toEqual({ id: expect.any(Number) })
  })

  it('completes a large value that an update leaves alone, where the old row is known', async () => {
    const { client } = await asUser()
    await sql.unsafe(`alter table ${schema}.full_open alter body set storage external`)
    const body = 'long '.repeat(5_000)
    await sql`insert into ${sql(schema)}.full_open values (7, ${body})`
    const { changes } = await subscribe(client, { table: 'full_open', event: 'UPDATE' })

    await sql`update ${sql(schema)}.full_open set id = 8 where id = 7`

    await until(() => changes.length)
    expect(changes[0]!.new).toEqual({ id: 8, body })
    await sql`delete from ${sql(schema)}.full_open`
  })

  it('says why a change cannot be shown: no key, a key the role may not read, a row too large', async () => {
    const { client } = await asUser()
    const { changes } = await subscribe(client, { table: 'keyless' }, { table: 'hidden_key' }, { table: 'full_open' })

    await sql`insert into ${sql(schema)}.keyless values ('x')`
    await sql`insert into ${sql(schema)}.hidden_key values (1, 'x')`
    await sql`insert into ${sql(schema)}.full_open values (9, ${'x'.repeat(1024 * 1024 + 1)})`

    await until(() => changes.length === 3)
    expect(changes.map(({ new: row, errors }) => ({ row, errors }))).toEqual([
      { row: {}, errors: ['Error 400: Bad Request, no primary key'] },
      { row: {}, errors: ['Error 401: Unauthorized'] },
      { row: { id: 9 }, errors: ['Error 413: Payload Too Large'] },
    ])
    await sql`delete from ${sql(schema)}.full_open`
  })

  it('goes by the claims of a refreshed token', async () => {
    const [before, after] = [randomUUID(), randomUUID()]
    let token = await tokenOf({ sub: before })
    const client = await realtimeClient({ token: async () => token })
    const { changes, system } = await subscribe(client, { table: 'notes', event: 'INSERT' })

    token = await tokenOf({ sub: after })
    await client.realtime.setAuth()
    await until(() => system.length === 2)
    await sql`insert into ${sql(schema)}.notes (owner_id) values (${before}), (${after})`

    await until(() => changes.length)
    expect(changes.map((change) => change.new)).toMatchObject([{ owner_id: after }])
  })

  it('belongs to a wildcard subscription at once when a table is published later', async () => {
    const { client } = await asUser()
    const { changes } = await subscribe(client, { table: '*' })

    await sql.unsafe(`create table ${schema}.later (id int primary key); grant select on ${schema}.later to authenticated;
      alter publication supabase_realtime add table ${schema}.later; insert into ${schema}.later values (1)`)
    await sql`insert into ${sql(schema)}.later values (2)`

    await until(() => changes.some((change) => change.table === 'later' && (change.new as { id: number }).id === 2))
    await sql.unsafe(`drop table ${schema}.later`)
  })
})

describe('a filter', () => {
  const rows = [
    { id: 1, label: 'apple', code: 'a', amount: 2, done: true, tags: ['x'], mood: 'low' },
    { id: 2, label: 'Banana', code: 'b', amount: 10, done: false, tags: ['y'], mood: 'high' },
    { id: 3, label: null, code: null, amount: null, done: null, tags: null, mood: null },
    { id: 4, label: 'a,(b)"c"', code: 'd', amount: 10.5, done: true, tags: ['x', 'y'], mood: 'low' },
  ]
  const cases: [string, number[]][] = [
    ['', [1, 2, 3, 4]],
    ['id=eq.2', [2]],
    ['id=not.eq.2', [1, 3, 4]],
    ['amount=eq.10', [2]],
    ['amount=neq.10', [1, 4]],
    ['amount=gt.9', [2, 4]],
    ['amount=gte.10', [2, 4]],
    ['amount=lt.10', [1]],
    ['amount=lte.10', [1, 2]],
    ['amount=not.lte.10', [4]],
    ['label=in.(apple,Banana)', [1, 2]],
    ['label=in.("a,(b)\\"c\\"",apple)', [1, 4]],
    ['label=not.in.(apple)', [2, 4]],
    ['id=in.()', []],
    ['label=like.a%', [1, 4]],
    ['label=not.like.a%', [2]],
    ['label=ilike.b%', [2]],
    ['label=match.^[A-Z]', [2]],
    ['label=imatch.^b', [2]],
    ['label=is.null', [3]],
    ['label=not.is.null', [1, 2, 4]],
    ['done=is.true', [1, 4]],
    ['done=not.is.true', [2, 3]],
    ['done=is.unknown', [3]],
    ['label=isdistinct.apple', [2, 3, 4]],
    ['label=not.isdistinct.apple', [1]],
    ['label=eq."a,(b)\\"c\\""', [4]],
    ['id=gt.1,id=lt.4', [2, 3]],
    ['mood=eq.high', [2]],
    ['mood=gt.low', [2]],
    ['tags=eq."{x,y}"', [4]],
    ['code=eq.b', [2]],
    [' id=eq.1 , label=eq.apple ', [1]],
  ]

  it('compares as Postgres does, whatever the operator and type', async () => {
    const { client } = await asUser()
    const channels: Awaited<ReturnType<typeof subscribe>>[] = []
    for (const [filter] of cases) channels.push(await subscribe(client, { table: 'things', event: 'INSERT', filter }))

    for (const row of rows) await sql`insert into ${sql(schema)}.things ${sql(row)}`
    // A change reaches the channels of a client one after the other.
    await until(() => channels.every(({ changes }, index) => changes.length >= cases[index]![1].length))

    const seen = channels.map(({ changes }, index) => [
      cases[index]![0],
      changes.map((change) => (change.new as { id: number }).id),
    ])
    expect(seen).toEqual(cases)
    await sql`delete from ${sql(schema)}.things`
  })

  it('sees of a deleted row only the columns of its replica identity', async () => {
    const { client } = await asUser()
    await sql`insert into ${sql(schema)}.things (id, label) values (5, 'x')`
    await sql`insert into ${sql(schema)}.full_open values (5, 'x')`
    const byKey = await subscribe(client, { table: 'things', event: 'DELETE', filter: 'id=eq.5' })
    const byLabel = await subscribe(client, { table: 'things', event: 'DELETE', filter: 'label=eq.x' })
    const full = await subscribe(client, { table: 'full_open', event: 'DELETE', filter: 'body=eq.x' })

    await sql`delete from ${sql(schema)}.things`
    await sql`delete from ${sql(schema)}.full_open`

    await until(() => full.changes.length === 1)
    expect([byKey.changes.length, byLabel.changes.length]).toEqual([1, 0])
  })
})

describe('a subscription that cannot be served', () => {
  const given = 'Unable to subscribe to changes with given parameters.'
  const exception = (filters: string, text: string, select = 'nil') =>
    `${given} An exception happened so please check your connect parameters: [event: *, schema: ${schema}, table: things, filters: [${filters}], select: ${select}]. Exception: ERROR ${text}`
  const cases: [Request & Record<string, unknown>, string][] = [
    [
      { table: 'unpublished' },
      `${given} Please check Realtime is enabled for the given connect parameters: [event: *, schema: ${schema}, table: unpublished, filters: [], select: nil]`,
    ],
    [{ table: 'things', filter: 'label=foo.hey' }, 'Error parsing `filter` params: ["foo", "hey"]'],
    [{ table: 'things', filter: 'undefined' }, 'Error parsing `filter` params: ["undefined"]'],
    [{ table: 'things', filter: 'id=eq' }, 'Error parsing `filter` params: ["eq"]'],
    [
      { table: 'things', filter: 'id=eq.1,' },
      'Error parsing `filter` params: filter must not contain empty segments (check for extra commas)',
    ],
    [
      { table: 'things', filter: 'id=in.1' },
      'Error parsing `filter` params: `in` filter value must be wrapped by parentheses',
    ],
    [
      { table: 'things', filter: 'nope=eq.1' },
      exception('{"nope", "eq", "1", false}', 'P0001 (raise_exception) invalid column for filter nope'),
    ],
    [
      { table: 'things', filter: 'secret=eq.1' },
      exception('{"secret", "eq", "1", false}', 'P0001 (raise_exception) invalid column for filter secret'),
    ],
    [
      { table: 'things', filter: 'id=not.eq.x' },
      exception(
        '{"id", "eq", "x", true}',
        '22P02 (invalid_text_representation) invalid input syntax for type integer: "x"',
      ),
    ],
    [
      { table: 'things', filter: 'id=like.1%' },
      exception(
        '{"id", "like", "1%", false}',
        'P0001 (raise_exception) operator like requires a text-compatible column type, got integer',
      ),
    ],
    [
      { table: 'things', filter: 'id=is.true' },
      exception(
        '{"id", "is", "true", false}',
        'P0001 (raise_exception) is true filter requires a boolean column, got integer',
      ),
    ],
    [
      { table: 'things', filter: 'label=match.(' },
      exception(
        '{"label", "match", "(", false}',
        'P0001 (raise_exception) invalid regular expression for match filter: invalid regular expression: parentheses () not balanced',
      ),
    ],
    [
      { table: 'things', filter: `id=in.(${Array.from({ length: 101 }, (_, id) => id)})` },
      exception(
        `{"id", "in", "{${Array.from({ length: 101 }, (_, id) => id)}}", false}`,
        'P0001 (raise_exception) too many values for `in` filter. Maximum 100',
      ),
    ],
    [
      { table: 'things', select: ['secret'] },
      exception('', 'P0001 (raise_exception) invalid column for select secret', '["secret"]'),
    ],
    [
      { table: '*', select: ['id'] },
      'Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.',
    ],
    [
      { filter: 'id=eq.1' },
      `No subscription params provided. Please provide at least a \`schema\` or \`table\` to subscribe to: %{"event" => "*", "filter" => "id=eq.1", "schema" => "${schema}"}`,
    ],
  ]

  it('joins all the same and says why, in the words of hosted', async () => {
    const { client } = await asUser()
    const said: string[] = []
    for (const [request] of cases) {
      const { system } = await subscribe(client, request)
      said.push(`${system[0]!.status}: ${system[0]!.message}`)
    }
    expect(said).toEqual(cases.map(([, text]) => `error: ${text}`))
  })

  it('refuses the join of one who asked to wait for the subscription', async () => {
    const { client } = await asUser()
    const options = { config: { postgres_changes_options: { wait: true } } }
    const [sound, spoilt] = ['notes', 'unpublished'].map((table) =>
      client
        .channel(`changes:${randomUUID()}`, options)
        .on('postgres_changes', { event: '*', schema, table }, () => {}),
    )

    await join(sound!)
    await expect(join(spoilt!)).rejects.toThrow('RealtimeDisabledForConfiguration: Unable to subscribe to changes')
  })

  it('spoils the other bindings of its channel and of no other channel', async () => {
    const { sub, client } = await asUser()
    const spoilt = await subscribe(client, { table: 'notes' }, { table: 'unpublished' })
    const sound = await subscribe(client, { table: 'notes' })

    await sql`insert into ${sql(schema)}.notes (owner_id) values (${sub})`

    await until(() => sound.changes.length)
    expect(spoilt.changes).toEqual([])
    expect(spoilt.system).toMatchObject([{ status: 'error' }])
  })
})
