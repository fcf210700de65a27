import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { readAll, send, startTalk } from './support/chat.ts'
import {
  admin,
  anonymous,
  database,
  functionsUrl,
  type Person,
  publishableKey,
  signUp,
  until,
  url,
} from './support/local.ts'

const remove = (person: Person) =>
  fetch(`${functionsUrl}/account`, { method: 'DELETE', headers: { authorization: `Bearer ${person.token}` } })

const jobEnds = (jobId: string) =>
  until(async () => {
    const [job] = await database()`select status, result, error from public.jobs where id = ${jobId}`
    return job?.status === 'completed' || job?.status === 'failed' ? job : null
  }, 45_000)

const png = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)

it('K-13 S-02 V-04 deletes the account with its files, its sign-in and everything owned alone', async () => {
  const talk = await startTalk()
  const { person } = talk
  await readAll(await send(talk))
  const path = `${person.id}/${randomUUID()}.png`
  const uploaded = await person.client.storage.from('avatars').upload(path, png, { contentType: 'image/png' })
  expect(uploaded.error).toBeNull()
  const picture = `${url}/storage/v1/object/public/avatars/${path}`
  expect((await fetch(picture)).status).toBe(200)

  const response = await remove(person)

  expect(response.status).toBe(202)
  const { status, job_id } = await response.json()
  expect(status).toBe('deleted')
  expect(await jobEnds(job_id)).toMatchObject({ status: 'completed', result: { files: 1 } })
  expect((await admin().auth.admin.getUserById(person.id)).error?.status).toBe(404)
  expect((await fetch(picture)).ok).toBe(false)
  const again = await anonymous().auth.signInWithPassword({ email: person.email, password: person.password })
  expect(again.error).not.toBeNull()
  const [left] = await database()`
    select
      (select count(*) from public.profiles where id = ${person.id})::int as profiles,
      (select count(*) from public.conversations where id = ${talk.conversationId})::int as conversations,
      (select count(*) from public.characters where id = ${talk.characterId})::int as characters,
      (select count(*) from storage.objects where name = ${path})::int as files`
  expect(left).toEqual({ profiles: 0, conversations: 0, characters: 0, files: 0 })
}, 90_000)

it('V-04 keeps what was said in a shared conversation, without a name', async () => {
  const talk = await startTalk()
  const friend = await signUp()
  await talk.person.client.rpc('invite_participant', { conversation_id: talk.conversationId, user_id: friend.id })
  await friend.client.rpc('accept_invitation', { conversation_id: talk.conversationId })
  await readAll(await send(talk, { content: 'I was here.' }))

  const { job_id } = await (await remove(talk.person)).json()
  await jobEnds(job_id)

  const { data: messages } = await friend.client
    .from('messages')
    .select('content, author_id')
    .eq('conversation_id', talk.conversationId)
    .eq('role', 'user')
  expect(messages).toEqual([{ content: 'I was here.', author_id: null }])
}, 90_000)

it('K-13 is safe to ask for twice: the second time gives the same job, and the token opens nothing else', async () => {
  const talk = await startTalk()

  const [first, second] = await Promise.all([remove(talk.person), remove(talk.person)])

  const jobs = [await first.json(), await second.json()]
  expect([first.status, second.status]).toEqual([202, 202])
  expect(jobs.map(({ status }) => status)).toEqual(['deleted', 'deleted'])
  // The second may come when the first one's job is done, and nobody is left to erase.
  expect(new Set(jobs.flatMap(({ job_id }) => job_id ?? [])).size).toBe(1)
  const message = await send(talk)
  expect([401, 403, 404]).toContain(message.status)
})

it('leaves the account alone when the caller is not a signed-in user', async () => {
  const person = await signUp()
  const attempts: Record<string, string>[] = [
    {},
    { apikey: publishableKey },
    { authorization: `Bearer ${publishableKey}` },
  ]

  for (const headers of attempts) {
    const response = await fetch(`${functionsUrl}/account`, { method: 'DELETE', headers })
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ code: 'sign_in_required' })
  }

  const me = await person.client.rpc('me')
  expect(me.error).toBeNull()
})
