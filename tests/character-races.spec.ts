import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Arena, openArena, refusal } from './support/races.ts'

/** Changes of a character at once, and the rule of versions as a property: database sessions that a test holds. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('characters')
})
afterEach(() => arena?.endSessions())
afterAll(() => arena?.close())

async function makeCharacter() {
  const owner = await arena.person('owner')
  const session = await arena.session()
  const id = await session.call<string>(
    owner,
    `insert into public.characters (name, age, greeting, visibility) values ('Ada', 36, 'Hello.', 'public') returning id`,
  )
  return { owner, id }
}

const versions = (id: string) => arena.sql`
  select version, snapshot ->> 'name' as name, snapshot ->> 'personality' as personality
  from public.character_versions where character_id = ${id} order by version`

describe('a character', () => {
  it('changed twice at once has two versions, the later with what both changed', async () => {
    const { owner, id } = await makeCharacter()
    const [first, second] = [await arena.session(), await arena.session()]
    await first.begin(owner)
    await first.value(`update public.characters set name = 'Ada L.' where id = $1`, [id])

    const waiting = second.call(
      owner,
      `update public.character_definitions set personality = 'Calm.' where character_id = $1`,
      [id],
    )
    // The second one makes its version when it ends, and waits for the first one there.
    await arena.blocked(second)
    await first.commit()
    await waiting

    expect(await versions(id)).toEqual([
      { version: 1, name: 'Ada', personality: '' },
      { version: 2, name: 'Ada L.', personality: '' },
      { version: 3, name: 'Ada L.', personality: 'Calm.' },
    ])
  })

  it('changed by update_character beside a change of its definition ends in no deadlock', async () => {
    const { owner, id } = await makeCharacter()
    const [first, second] = [await arena.session(), await arena.session()]
    await first.begin(owner)
    await first.value(`update public.character_definitions set personality = 'Calm.' where character_id = $1`, [id])

    const waiting = second.call(
      owner,
      `select public.update_character($1, '{"name": "Ada L.", "scenario": "London."}')`,
      [id],
    )
    await arena.blocked(second)
    await first.commit()
    await waiting

    expect(await versions(id)).toMatchObject([
      { version: 1 },
      { version: 2, name: 'Ada' },
      { version: 3, name: 'Ada L.', personality: 'Calm.' },
    ])
  })

  it('changed twice from one version is changed once', async () => {
    const { owner, id } = await makeCharacter()
    const [first, second] = [await arena.session(), await arena.session()]
    await first.begin(owner)
    await first.value(`select public.update_character($1, '{"name": "Ada L."}', 1)`, [id])

    const waiting = refusal(second.call(owner, `select public.update_character($1, '{"name": "Ada K."}', 1)`, [id]))
    await arena.blocked(second)
    await first.commit()

    expect(await waiting).toBe('character_version_conflict')
    expect(await versions(id)).toMatchObject([{ name: 'Ada' }, { name: 'Ada L.' }])
  })

  it('deleted while somebody starts a conversation leaves one that can be read, or none', async () => {
    const { owner, id } = await makeCharacter()
    const guest = await arena.person('guest')
    const [first, second] = [await arena.session(), await arena.session()]
    await first.begin(guest)
    const talk = await first.value<string>(`select id from public.start_conversation($1)`, [id])

    await second.call(owner, `select public.delete_character($1)`, [id])
    await first.commit()

    const [read] = await arena.sql`
      select c.character_version, m.content, v.snapshot
      from public.conversations as c
      join public.messages as m on m.conversation_id = c.id
      join public.character_versions as v on v.character_id = c.character_id and v.version = c.character_version
      where c.id = ${talk}`
    expect(read).toEqual({ character_version: 1, content: 'Hello.', snapshot: {} })
    expect(await refusal(second.call(guest, `select public.start_conversation($1)`, [id]))).toBe('character_not_found')
  })

  it('deleted while it is changed stays deleted, and empty', async () => {
    const { owner, id } = await makeCharacter()
    const [first, second] = [await arena.session(), await arena.session()]
    await first.begin(owner)
    await first.value(`select public.delete_character($1)`, [id])

    const waiting = refusal(
      second.call(owner, `select public.update_character($1, '{"name": "Back", "scenario": "Secret."}')`, [id]),
    )
    await arena.blocked(second)
    await first.commit()

    expect(await waiting).toBe('character_not_found')
    expect(await arena.sql`select snapshot from public.character_versions where character_id = ${id}`).toEqual([
      { snapshot: {} },
    ])
  })

  it('imported twice at once with one key is one character', async () => {
    const owner = await arena.person('owner')
    const [first, second] = [await arena.session(), await arena.session()]
    const call = `select (service.import_character($1, '{"character": {"name": "Ada", "age": 36}}', 'once')).id`
    await first.begin('service_role')
    const made = await first.value<string>(call, [owner])

    const waiting = second.call<string>('service_role', call, [owner])
    await arena.blocked(second)
    await first.commit()

    expect(await waiting).toBe(made)
    expect(await arena.sql`select id from public.characters where owner_id = ${owner}`).toEqual([{ id: made }])
  })
})

describe('a lorebook', () => {
  it('filled twice at once has two thousand entries at most', async () => {
    const { owner, id } = await makeCharacter()
    const [first, second] = [await arena.session(), await arena.session()]
    const book = await first.call<string>(
      owner,
      `insert into public.lorebooks (character_id) values ($1) returning id`,
      [id],
    )
    const fill = `insert into public.lore_entries (lorebook_id, content) select $1::uuid, 'x' from generate_series(1, 1500) returning 1`
    await first.begin(owner)
    await first.value(fill, [book])

    const waiting = refusal(second.call(owner, fill, [book]))
    await arena.blocked(second)
    await first.commit()

    expect(await waiting).toBe('lorebook_full')
  })
})

describe('versions', () => {
  it('count up without a gap through any edits, and every conversation still has what it began with', async () => {
    const edit = fc.oneof(
      fc.record({ kind: fc.constant('face' as const), text: fc.constantFrom('one', 'two', 'three') }),
      fc.record({ kind: fc.constant('definition' as const), text: fc.constantFrom('one', 'two', 'three') }),
      fc.record({ kind: fc.constant('both' as const), text: fc.constantFrom('one', 'two', 'three') }),
      fc.record({ kind: fc.constant('unprompted' as const), text: fc.constantFrom('one', 'two') }),
      fc.record({ kind: fc.constant('talk' as const), text: fc.constant('') }),
    )
    const statements = {
      face: `update public.characters set tagline = $2 where id = $1`,
      definition: `update public.character_definitions set scenario = $2 where character_id = $1`,
      both: `select public.update_character($1, jsonb_build_object('tagline', $2::text, 'scenario', $2::text))`,
      unprompted: `update public.characters set creator_notes = $2 where id = $1`,
    }
    const session = await arena.session()

    await fc.assert(
      fc.asyncProperty(fc.array(edit, { maxLength: 12 }), async (edits) => {
        const { owner, id } = await makeCharacter()
        let now = { tagline: '', scenario: '' }
        const history = [now]
        const pinned: (typeof now)[] = []
        for (const { kind, text } of edits) {
          if (kind === 'talk') {
            await session.call(owner, 'select public.start_conversation($1)', [id])
            pinned.push(now)
            continue
          }
          await session.call(owner, statements[kind], [id, text])
          const next = {
            tagline: kind === 'face' || kind === 'both' ? text : now.tagline,
            scenario: kind === 'definition' || kind === 'both' ? text : now.scenario,
          }
          if (next.tagline !== now.tagline || next.scenario !== now.scenario) history.push(next)
          now = history.at(-1)!
        }

        const kept = await arena.sql`
          select version, snapshot ->> 'tagline' as tagline, snapshot ->> 'scenario' as scenario
          from public.character_versions where character_id = ${id} order by version`
        expect(kept).toEqual(history.map((was, at) => ({ version: at + 1, ...was })))
        const talks = await arena.sql`
          select v.snapshot ->> 'tagline' as tagline, v.snapshot ->> 'scenario' as scenario
          from public.conversations as c
          join public.character_versions as v on v.character_id = c.character_id and v.version = c.character_version
          where c.character_id = ${id} order by c.id`
        expect(talks).toEqual(pinned)
      }),
      { numRuns: 15 },
    )
  })
})
