import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { faultsOf, type Message, readTree, type Shown } from './support/message-tree.ts'
import { type Arena, openArena, refusal, type Session } from './support/races.ts'

/** People who write, choose and delete in the same moment: a session holds the conversation until all of them wait for it. */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('tree_races')
})
afterEach(() => arena.endSessions())
afterAll(() => arena?.close())

interface Sent {
  user_message: Message
  assistant_message: Message
  generation: { id: string }
}

/** Ada's conversation with a member, Ben, after one question of Ada's and its answer. */
async function begin() {
  const session = await arena.session()
  const [ada, ben] = [await arena.person('ada'), await arena.person('ben')]
  const character = await session.call<string>(
    ada,
    `insert into public.characters (name, age) values ('Mira', 30) returning id`,
  )
  const id = await session.call<string>(ada, 'select id from public.start_conversation($1)', [character])
  await session.call(ada, 'select public.invite_participant($1, $2)', [id, ben])
  await session.call(ben, 'select public.accept_invitation($1)', [id])
  const sent = await session.call<Sent>(ada, 'select public.send_message($1, $2)', [id, 'Where are we?'])
  await finish(session, sent)
  return { id, ada, ben, question: sent.user_message.id, answer: sent.assistant_message.id, session }
}

async function claim(session: Session, { generation }: Sent) {
  return await session.call<{ attempt: number; lease_token: string }>(
    'service_role',
    'select service.claim_generation($1)',
    [generation.id],
  )
}

const finishing = 'select service.finish_generation($1, $2, $3, $4)'
async function finish(session: Session, sent: Sent): Promise<void> {
  const { attempt, lease_token } = await claim(session, sent)
  const outcome = { status: 'completed' } as never
  await session.call('service_role', finishing, [sent.generation.id, attempt, lease_token, outcome])
}

type Call = [who: string, statement: string, values: unknown[]]

/** Lets the calls wait for the conversation, all at once and in this order, then go; answers what became of each. */
async function meet(conversation: string, ...calls: Call[]): Promise<string[]> {
  const holder = await arena.session()
  await holder.begin('postgres')
  await holder.value('select from public.conversations where id = $1 for update', [conversation])
  const outcomes: Promise<string>[] = []
  for (const call of calls) {
    const session = await arena.session()
    outcomes.push(refusal(session.call(...call)))
    await arena.blocked(session)
  }
  await holder.commit()
  return await Promise.all(outcomes)
}

async function faults(conversation: string, person: string): Promise<string[]> {
  const session = await arena.session()
  const shown = await session.call<Shown[] | null>(
    person,
    'select jsonb_agg(b order by b.depth) from public.conversation_branch($1) as b',
    [conversation],
  )
  return faultsOf(await readTree(arena.sql, conversation), shown ?? [])
}

const texts = async (conversation: string) =>
  [...(await readTree(arena.sql, conversation)).messages.values()]
    .filter(({ deleted_at, role }) => !deleted_at && role === 'user')
    .map(({ content }) => content)

const done = expect.stringMatching(/^no refusal/)
const edit = (who: string, message: string, key: string | null = null): Call => [
  who,
  'select public.edit_message($1, $2, $3)',
  [message, 'In other words.', key],
]
const remove = (who: string, message: string): Call => [who, 'select public.delete_message($1, true)', [message]]

describe('in the same moment', () => {
  it('of two edits and another answer one comes first, and the others are told', async () => {
    const { id, ada, ben, question, answer } = await begin()

    const outcomes = await meet(id, edit(ada, question), edit(ada, question), [
      ben,
      'select public.regenerate_message(message_id => $1)',
      [answer],
    ])

    expect(outcomes.filter((told) => told === 'generation_in_progress')).toHaveLength(2)
    expect((await readTree(arena.sql, id)).messages.size).toBe(outcomes[2]!.startsWith('no') ? 3 : 4)
    expect(await faults(id, ada)).toEqual([])
  })

  it('the same edit with the same key is one edit', async () => {
    const { id, ada, question } = await begin()

    const [one, other] = await meet(id, edit(ada, question, 'key'), edit(ada, question, 'key'))

    expect(one).toEqual(done)
    expect(other).toBe(one)
    expect(await texts(id)).toEqual(['Where are we?', 'In other words.'])
  })

  it('an edit and the deletion of what it edits leave the new text, or refuse to write it', async () => {
    const { id, ada, question } = await begin()

    const [edited, deleted] = await meet(id, edit(ada, question), remove(ada, question))

    expect(deleted).toEqual(done)
    expect(await texts(id)).toEqual(edited === 'message_not_found' ? [] : ['In other words.'])
    expect(await faults(id, ada)).toEqual([])
  })

  it('a deletion before the edit leaves nothing to edit', async () => {
    const { id, ada, question } = await begin()

    const [deleted, edited] = await meet(id, remove(ada, question), edit(ada, question))

    expect(deleted).toEqual(done)
    expect(['message_not_found', done]).toContainEqual(edited)
    expect(await texts(id)).toEqual(edited === 'message_not_found' ? [] : ['In other words.'])
    expect(await faults(id, ada)).toEqual([])
  })

  it('a message and the deletion of the branch that it follows do not lose each other', async () => {
    const { id, ada, ben, question } = await begin()

    const outcomes = await meet(id, remove(ada, question), [
      ben,
      'select public.send_message($1, $2)',
      [id, 'I am here.'],
    ])

    expect(outcomes).toEqual([expect.stringMatching(/^(no refusal|generation_in_progress)/), done])
    expect(await texts(id)).toContain('I am here.')
    expect(await faults(id, ada)).toEqual([])
  })

  it('a choice and the deletion of what is chosen show what is left', async () => {
    const { id, ada, ben, question, answer, session } = await begin()
    await finish(session, await session.call<Sent>(ada, 'select public.regenerate_message($1)', [id]))

    const [deleted, chosen] = await meet(id, remove(ada, answer), [ben, 'select public.select_variant($1)', [answer]])

    expect(deleted).toEqual(done)
    expect(['message_not_found', done]).toContainEqual(chosen)
    const tree = await readTree(arena.sql, id)
    expect(tree.messages.get(tree.leaf!)).toMatchObject({ parent_id: question, is_gone: false })
    expect(await faults(id, ada)).toEqual([])
  })

  it('nobody writes on who was removed while they waited', async () => {
    const { id, ada, ben, answer } = await begin()

    const [, edited, deleted] = await meet(
      id,
      [ada, 'select public.remove_participant($1, $2)', [id, ben]],
      edit(ben, answer),
      remove(ben, answer),
    )

    expect([edited, deleted]).toEqual(['conversation_not_found', 'conversation_not_found'])
    expect((await readTree(arena.sql, id)).messages.size).toBe(2)
  })

  it('an answer that is about to end is not deleted, and once it has ended it is', async () => {
    const { id, ada, session } = await begin()
    const sent = await session.call<Sent>(ada, 'select public.send_message($1, $2)', [id, 'And now?'])
    const { attempt, lease_token } = await claim(session, sent)
    const runner = await arena.session()
    await runner.begin('service_role')
    await runner.value(finishing, [sent.generation.id, attempt, lease_token, { status: 'completed' }])

    const early = await refusal(session.call(...remove(ada, sent.user_message.id)))
    await runner.commit()
    const late = await refusal(session.call(...remove(ada, sent.user_message.id)))

    expect([early, late]).toEqual(['generation_in_progress', done])
    expect(await faults(id, ada)).toEqual([])
  })

  it.each([
    ['first', 'completed'],
    ['last', 'cancelled'],
  ])('an answer that ends %s while its conversation is deleted is settled once, as %s', async (order, status) => {
    const { id, ada, session } = await begin()
    const sent = await session.call<Sent>(ada, 'select public.send_message($1, $2)', [id, 'And now?'])
    const { attempt, lease_token } = await claim(session, sent)
    const usage = { prompt_tokens: 10, completion_tokens: 2, cached_tokens: 0, estimated: true }
    const entry = {
      generation_id: sent.generation.id,
      attempt,
      lease_token,
      chunks: [{ seq: 1, text: 'Here.' }],
      usage,
    }
    await session.call('service_role', 'select service.append_chunks($1)', [[entry]])
    const end: Call = ['service_role', finishing, [sent.generation.id, attempt, lease_token, { status: 'completed' }]]
    const calls: Call[] = [end, [ada, 'select public.delete_conversation($1)', [id]]]

    const outcomes = await meet(id, ...(order === 'first' ? calls : calls.toReversed()))

    expect(outcomes).toEqual([done, done])
    const [left] = await arena.sql`
      select g.status, c.deleted_at is not null as is_deleted,
        (select count(*)::int from private.usage_holds as h where h.generation_id = g.id) as holds,
        (select count(*)::int from public.usage_receipts as r where r.message_id = g.message_id) as receipts,
        (select count(*)::int from private.generation_leases as l where l.generation_id = g.id) as leases
      from public.generations as g join public.conversations as c on c.id = g.conversation_id
      where g.id = ${sent.generation.id}`
    expect(left).toEqual({ status, is_deleted: true, holds: 0, receipts: 1, leases: 0 })
    expect(await refusal(session.call(ada, 'select public.send_message($1, $2)', [id, 'Hello?']))).toBe(
      'conversation_not_found',
    )
  })

  it.each(['before', 'after'])('a summary kept %s the deletion of what it tells does not tell it', async (order) => {
    const { id, ada, question, answer, session } = await begin()
    const begun = await session.call<{ completion_id: string; fingerprint: string }>(
      'service_role',
      'select service.begin_summary($1, $2)',
      [id, answer],
    )
    const keep: Call = [
      'service_role',
      'select service.keep_summary($1, $2, $3, $4, $5)',
      [begun.completion_id, id, answer, begun.fingerprint, 'They asked where they are.'],
    ]
    const calls: Call[] = [keep, [ada, 'select public.delete_message($1)', [question]]]

    const outcomes = await meet(id, ...(order === 'before' ? calls : calls.toReversed()))

    expect(outcomes[order === 'before' ? 0 : 1]).toBe(`no refusal, but ${order === 'before'}`)
    expect(await arena.sql`select content from public.conversation_summaries where conversation_id = ${id}`).toEqual([])
  })
})
