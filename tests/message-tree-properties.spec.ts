import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Arena, openArena, refusal, type Session } from './support/races.ts'
import { endOf, faultsOf, type Message, pathTo, readTree, type Shown, type Tree } from './support/message-tree.ts'

/**
 * Whatever people do to a conversation, one after the other or at once: nothing that somebody wrote is lost, one branch is
 * shown, and no message stands anywhere else than where it was written. Callers are what RLS makes of them.
 */
let arena: Arena
beforeAll(async () => {
  arena = await openArena('tree')
})
afterAll(() => arena?.close())

/** Who acts, on which message (counted from the newest that there is), and how. */
const who = fc.constantFrom('owner', 'owner', 'owner', 'member', 'member', 'member', 'viewer')
const pick = fc.nat({ max: 12 })
const action = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('send' as const), who }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('edit' as const), who, pick }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('regenerate' as const), who, pick: fc.option(pick) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('select' as const), who, pick }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('delete' as const),
      who,
      pick,
      whole: fc.constantFrom(false, false, true),
    }),
  },
)
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never

const refusals = [
  'generation_in_progress',
  'message_not_found',
  'message_not_yours',
  'nothing_to_answer',
  'conversation_read_only',
]

interface Scene {
  id: string
  people: Record<'owner' | 'member' | 'viewer', string>
  /** What was written, by message, until somebody deleted it. */
  written: Map<string, { text: string; by: string }>
  /** What somebody was allowed to delete: a message, or a branch. */
  deleted: { message: string; whole: boolean; by: string }[]
  said: number
}

async function startScene(session: Session): Promise<Scene> {
  const [owner, member, viewer] = await Promise.all(['owner', 'member', 'viewer'].map((name) => arena.person(name)))
  const character = await session.call<string>(
    owner!,
    `insert into public.characters (name, age, greeting) values ('Mira', 30, 'Hello, you.') returning id`,
  )
  const id = await session.call<string>(owner!, 'select id from public.start_conversation($1)', [character])
  await arena.sql`
    insert into public.conversation_participants (conversation_id, user_id, role, state, joined_at)
    values (${id}, ${member!}, 'member', 'joined', now()), (${id}, ${viewer!}, 'viewer', 'joined', now())`
  const tree = await readTree(arena.sql, id)
  const written = new Map([[tree.leaf!, { text: 'Hello, you.', by: 'nobody' }]])
  const people = { owner: owner!, member: member!, viewer: viewer! }
  const scene: Scene = { id, people, written, deleted: [], said: 0 }
  // Something to begin with: what each of them said stands above and below what the other one did.
  for (const who of ['owner', 'member', 'owner'] as const) await act(session, scene, [], { kind: 'send', who })
  await act(session, scene, [], { kind: 'regenerate', who: 'owner', pick: null })
  return scene
}

interface Sent {
  user_message: Message | null
  assistant_message: Message
  generation: { id: string } | null
}

/** What can be picked, newest first; what is gone only where nothing else is left. */
const pickable = (tree: Tree): string[] => {
  const all = [...tree.messages.values()].sort((a, b) => (a.id < b.id ? 1 : -1))
  const there = all.filter(({ is_gone }) => !is_gone)
  return (there.length > 0 ? there : all).map(({ id }) => id)
}

/** Does one thing and notes what was written or deleted; a refusal must be one that people can meet. */
async function act(session: Session, scene: Scene, messages: string[], done: Action): Promise<void> {
  const me = scene.people[done.who]
  const text = `text ${++scene.said}`
  const message = 'pick' in done && done.pick !== null ? messages[done.pick % messages.length]! : null
  const note = async (sent: Sent) => {
    // What was there before keeps its author: a question that is answered again is not written again.
    for (const { id, content } of [sent.user_message, sent.assistant_message].filter((row) => row !== null)) {
      if (content !== '' && !scene.written.has(id)) scene.written.set(id, { text: content, by: me })
    }
    if (!sent.generation) return
    // The model answers, and what it says is to be kept as well.
    scene.written.set(sent.assistant_message.id, { text: `answer ${text}`, by: me })
    await answer(session, sent.generation.id, `answer ${text}`)
  }
  const calls = {
    send: () => session.call<Sent>(me, 'select public.send_message($1, $2)', [scene.id, text]).then(note),
    edit: () => session.call<Sent>(me, 'select public.edit_message($1, $2)', [message, text]).then(note),
    regenerate: () =>
      session.call<Sent>(me, 'select public.regenerate_message($1, $2)', [scene.id, message]).then(note),
    select: () => session.call(me, 'select public.select_variant($1)', [message]),
    delete: async () => {
      const { whole } = done as { whole: boolean }
      await session.call(me, 'select public.delete_message($1, $2)', [message, whole])
      scene.deleted.push({ message: message!, whole, by: done.who })
    },
  }
  const told = await refusal(calls[done.kind]())
  if (!told.startsWith('no refusal')) expect(refusals).toContain(told)
  else expect(done.who).not.toBe('viewer')
}

async function answer(session: Session, generation: string, text: string): Promise<void> {
  const lease = await session.call<{ attempt: number; lease_token: string }>(
    'service_role',
    'select service.claim_generation($1)',
    [generation],
  )
  await session.call('service_role', 'select service.append_chunks($1)', [
    [{ ...lease, chunks: [{ seq: 1, text }], usage: null }] as never,
  ])
  await session.call('service_role', 'select service.finish_generation($1, $2, $3, $4)', [
    generation,
    lease.attempt,
    lease.lease_token,
    { status: 'completed' } as never,
  ])
}

/** Every text that was written is in its place, unless somebody who may deleted it. */
function lostTexts(scene: Scene, tree: Tree): string[] {
  const mayDelete = (by: string, author: string) => by === 'owner' || scene.people[by as 'member'] === author
  return [...scene.written].flatMap(([id, { text, by }]) => {
    const message = tree.messages.get(id)
    if (message?.content === text) return []
    const above = new Set(pathTo(tree, id).map((row) => row.id))
    const deleted = scene.deleted.some(
      (deletion) =>
        mayDelete(deletion.by, by) && (deletion.message === id || (deletion.whole && above.has(deletion.message))),
    )
    return message?.deleted_at && deleted ? [] : [`${text}: ${JSON.stringify(message)}`]
  })
}

const branch = async (session: Session, scene: Scene): Promise<Shown[]> =>
  (await session.call<Shown[] | null>(
    scene.people.viewer,
    'select jsonb_agg(b order by b.depth) from public.conversation_branch($1, null, 200) as b',
    [scene.id],
  )) ?? []

async function verify(session: Session, scene: Scene): Promise<Tree> {
  const [tree, shown] = [await readTree(arena.sql, scene.id), await branch(session, scene)]
  expect(faultsOf(tree, shown)).toEqual([])
  expect(lostTexts(scene, tree)).toEqual([])
  return tree
}

/** Every living message can be brought back onto the screen. */
async function reachAll(session: Session, scene: Scene, tree: Tree): Promise<void> {
  for (const { id } of [...tree.messages.values()].filter((message) => message.deleted_at === null)) {
    await session.call(scene.people.owner, 'select public.select_variant($1)', [id])
    expect((await branch(session, scene)).map((row) => row.id)).toContain(id)
  }
}

describe('the tree of a conversation', () => {
  it('keeps every text where it was written and shows one branch, whatever is done one after the other', async () => {
    const session = await arena.session()
    await fc.assert(
      fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 30, size: 'max' }), async (actions) => {
        const scene = await startScene(session)
        let tree = await verify(session, scene)
        // What was shown below each message when it was shown last.
        const remembered = new Map<string, string>()
        const remember = (now: Tree) => {
          for (const { id, parent_id } of pathTo(now, now.leaf)) if (parent_id) remembered.set(parent_id, id)
        }
        for (const done of actions) {
          const messages = pickable(tree)
          await act(session, scene, messages, done)
          const before = tree
          tree = await verify(session, scene)
          if (done.kind === 'select' && tree.leaf !== before.leaf) {
            const chosen = messages[done.pick % messages.length]!
            expect(tree.leaf).toBe(endOf(before, chosen, (parent) => remembered.get(parent)))
          }
          remember(tree)
        }
        await reachAll(session, scene, tree)
      }),
      { numRuns: 15, endOnFailure: true },
    )
    await arena.endSessions()
  }, 60_000)

  it('keeps them when several people act at the same moment', async () => {
    const sessions = await Promise.all([1, 2, 3].map(() => arena.session()))
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(action, { minLength: 2, maxLength: 3 }), { minLength: 3, maxLength: 10, size: 'max' }),
        async (moments) => {
          const scene = await startScene(sessions[0]!)
          let tree = await verify(sessions[0]!, scene)
          for (const moment of moments) {
            const messages = pickable(tree)
            await Promise.all(moment.map((done, index) => act(sessions[index]!, scene, messages, done)))
            tree = await verify(sessions[0]!, scene)
          }
          await reachAll(sessions[0]!, scene, tree)
        },
      ),
      { numRuns: 15, endOnFailure: true },
    )
    await arena.endSessions()
  }, 60_000)
})
