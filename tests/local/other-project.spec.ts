import { describe, expect, it } from 'vitest'
import { projectStack } from '../support/project.ts'
import { otherProject } from './fixtures/processes.ts'

describe('a project that is not Parlor', () => {
  const served = projectStack(otherProject)

  it('is served with its own migrations and seed, under its own row limit', async () => {
    const { data, error } = await served.client().from('notes').select('body, title').order('id')
    expect(error).toBeNull()
    expect(data).toEqual([
      { body: 'note 1', title: 'first' },
      { body: 'note 2', title: null },
      { body: 'note 3', title: null },
    ])
  })

  it('exposes only what its migrations grant when its config switches auto-expose off', async () => {
    const { error } = await served.admin().from('notes').select()
    expect(error?.code).toBe('42501')
  })

  it('reads a secret of [db.vault] that came from its local.env', async () => {
    const { data } = await served.client().rpc('greeting')
    expect(data).toBe(`Hello from ${served.url}`)
    expect(await served.sql()`select name from vault.decrypted_secrets`).toEqual([{ name: 'greeting' }])
  })

  it('has its function under its slug, with the environment that hosted injects', async () => {
    const response = await fetch(`${served.url}/functions/v1/hello/there`)
    expect(await response.json()).toEqual({
      path: '/hello/there',
      greeting: `Hello from ${served.url}`,
      model: `${served.url}/sandbox/openai/v1`,
      keys: ['default'],
      databaseUrl: null,
      wallClock: '0',
    })
  })

  it('has its buckets, with the files of objects_path in them', async () => {
    const response = await fetch(`${served.url}/storage/v1/object/public/papers/manuals/notes.txt`)
    expect(response.status).toBe(200)
    expect(await response.text()).toBe('How to write a note.\n')
  })

  it('signs people up with Auth', async () => {
    const client = served.client()
    const { data } = await client.auth.signUp({ email: 'reader@example.com', password: 'a long password' })
    expect(data.user?.email).toBe('reader@example.com')
  })

  it('sees nothing of Parlor', async () => {
    const tables = await served.sql()`select tablename from pg_tables where schemaname = 'public'`
    expect(tables.map((row) => row.tablename)).toEqual(['notes'])
  })
})
