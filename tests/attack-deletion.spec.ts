import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { admin, database, functionsUrl, signUp, until, url } from './support/local.ts'
import { type Arena, openArena, refusal } from './support/races.ts'

const png = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)

describe('a row that is written while its owner is being deleted', () => {
  let arena: Arena
  beforeAll(async () => {
    arena = await openArena('attack_deletion')
  })
  afterEach(() => arena.endSessions())
  afterAll(() => arena.close())

  it.each([
    ['a document', `insert into public.documents (collection, data) values ('notes', '{"secret": 1}')`],
    ['a character', `insert into public.characters (name, age, visibility) values ('Left behind', 30, 'public')`],
    ['a block', `insert into public.blocks (blocked_id) values ('$other')`],
  ])('%s is refused, and leaves neither row nor event', async (_what, statement) => {
    const [person, other] = [await arena.person(), await arena.person()]
    const [deletion, writer] = [await arena.session(), await arena.session()]
    await deletion.begin('service_role')
    await deletion.value('select service.begin_account_deletion($1)', [person])

    const written = refusal(writer.call(person, statement.replace('$other', other)))
    await arena.blocked(writer)
    await deletion.commit()

    expect(await written).toBe('42501')
    const [left] = await arena.sql`
      select (select count(*) from private.outbox where user_id = ${person})::int as events,
        (select count(*) from public.documents where owner_id = ${person})::int as documents,
        (select count(*) from public.characters where owner_id = ${person})::int as characters,
        (select count(*) from public.blocks where blocker_id = ${person})::int as blocks`
    expect(left).toEqual({ events: 0, documents: 0, characters: 0, blocks: 0 })
  })
})

it('a file that arrives after the deletion, by an address signed before it, is erased as well', async () => {
  const { id, token, client } = await signUp()
  const path = `${id}/${randomUUID()}.png`
  const { data: signed } = await client.storage.from('avatars').createSignedUploadUrl(path)
  await fetch(`${functionsUrl}/account`, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } })
  await until(async () => (await admin().auth.admin.getUserById(id)).error?.status === 404, 30_000)
  await client.storage.from('avatars').uploadToSignedUrl(path, signed!.token, png, { contentType: 'image/png' })
  const file = () => fetch(`${url}/storage/v1/object/public/avatars/${path}`)
  expect((await file()).status).toBe(200)

  // Three hours later.
  const moved = await database()`
    select private.postpone_job(job_id, interval '0') from private.job_work where dedupe_key = ${`erase:${id} late files`}`
  expect(moved).toHaveLength(1)

  await until(async () => !(await file()).ok, 30_000)
}, 90_000)

it('of ten deletions at once each says that the account is deleted, and all name one job', async () => {
  const { token } = await signUp()

  const answers = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const headers = { authorization: `Bearer ${token}` }
      const response = await fetch(`${functionsUrl}/account`, { method: 'DELETE', headers })
      return { status: response.status, ...(await response.json()) }
    }),
  )

  expect(answers.map(({ status }) => status)).toEqual(Array(10).fill('deleted'))
  const jobs = new Set(answers.map(({ job_id }) => job_id).filter(Boolean))
  expect(jobs.size).toBe(1)
})
