import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { admin, anonymous, client, database, type Person, session, signUp, until, url } from './support/local.ts'

/** A name nobody else in the run has. */
const fresh = (name: string) => `${name}_${randomUUID().replaceAll('-', '').slice(0, 10)}`
const profileOf = async (person: Person, as = person.client) =>
  (await as.from('profiles').select().eq('id', person.id)).data?.[0]
const code = (result: { error: { message: string } | null }) => result.error?.message

describe('signing up', () => {
  it('V-02 makes a profile with a username from the e-mail prefix and the default avatar', async () => {
    const name = fresh('grace')

    const grace = await signUp({ email: `${name}@navy.example` })

    expect(await profileOf(grace)).toMatchObject({
      id: grace.id,
      username: name,
      display_name: name,
      avatar_path: 'default/avatar.png',
      status: 'active',
      locale: 'en',
    })
    const avatar = await until(async () => {
      const response = await fetch(`${url}/storage/v1/object/public/avatars/default/avatar.png`)
      return response.ok ? response : null
    })
    expect(avatar.headers.get('content-type')).toBe('image/png')
  })

  it('V-02 gives two people with the same e-mail prefix two usernames', async () => {
    const name = fresh('alan')

    const people = await Promise.all(['a', 'b', 'c', 'd'].map((host) => signUp({ email: `${name}@${host}.example` })))

    const usernames = await Promise.all(people.map(async (person) => (await profileOf(person))!.username))
    expect(new Set(usernames).size).toBe(4)
    expect(usernames.filter((username) => username === name)).toHaveLength(1)
  })

  it('V-02 ignores hostile metadata', async () => {
    const mallory = await signUp({
      data: {
        display_name: '\u202Eadmin',
        role: 'service_role',
        status: 'deleted',
        username: 'admin',
        roles: ['admin'],
      },
    })

    const { data: me } = await mallory.client.rpc('me')

    expect(me).toMatchObject({ roles: [], status: 'active' })
    expect((me as { display_name: string }).display_name).toBe((me as { username: string }).username)
  })

  it('announces user.registered in the outbox', async () => {
    const ada = await signUp()

    const events = await database()`select kind, payload from private.outbox where user_id = ${ada.id}`

    expect(events).toEqual([{ kind: 'user.registered', payload: { user_id: ada.id, email: ada.email } }])
  })

  it('gives one username to one of two sign-ups that overlap', async () => {
    const name = fresh('race')
    const [first, second] = [session(), session()]
    const insert = (sql: typeof first, id: string, host: string) =>
      sql`insert into auth.users (id, aud, role, email) values (${id}, 'authenticated', 'authenticated', ${`${name}@${host}.example`})`
    const ids = [randomUUID(), randomUUID()] as const
    await first`begin`
    await insert(first, ids[0], 'a')
    const [{ pid }] = (await second`select pg_backend_pid() as pid`) as unknown as [{ pid: number }]

    const waiting = insert(second, ids[1], 'b').execute()
    await until(async () => (await database()`select from pg_locks where pid = ${pid} and not granted`).length)
    await first`commit`
    await waiting

    const rows =
      await database()`select id, username from public.profiles where id in ${database()(ids)} order by id = ${ids[1]}`
    expect(rows[0]!.username).toBe(name)
    expect(rows[1]!.username).toMatch(new RegExp(`^${name.slice(0, 22)}[0-9a-f]{4}$`))
  })
})

describe('me', () => {
  it('V-05 S-02 returns the profile, the e-mail, the roles and the private topic of the caller', async () => {
    const ada = await signUp()

    const { data, error } = await ada.client.rpc('me')

    expect(error).toBeNull()
    expect(data).toMatchObject({ id: ada.id, email: ada.email, roles: [], mature_confirmed_at: null })
    expect((data as { topic: string }).topic).toMatch(new RegExp(`^user:${ada.id}:[0-9a-f]{32}$`))
  })

  it('K-12 marks the caller as seen, at most once a minute', async () => {
    const ada = await signUp()

    const first = (await ada.client.rpc('me')).data as { last_seen_at: string }
    const second = (await ada.client.rpc('me')).data as { last_seen_at: string }

    expect(Date.now() - Date.parse(first.last_seen_at)).toBeLessThan(60_000)
    expect(second.last_seen_at).toBe(first.last_seen_at)
  })

  it('V-05 is refused to a visitor and to a forged token', async () => {
    const visitor = await anonymous().rpc('me')
    const forged = await client(`${(await signUp()).token.slice(0, -6)}AAAAAA`).rpc('me')

    expect(visitor.status).toBe(401)
    expect(forged.status).toBe(401)
  })
})

describe('a profile', () => {
  it('V-01 is found by its did', async () => {
    const ada = await signUp()
    const { did } = (await profileOf(ada))!
    const host = encodeURIComponent(new URL(url).host)

    const { data } = await anonymous().from('profiles').select('id').eq('did', did!)

    expect(did).toBe(`did:web:${host}:users:${ada.id}`)
    expect(data).toEqual([{ id: ada.id }])
  })

  it('V-03 S-02 K-12 is updated by its owner', async () => {
    const ada = await signUp()
    const change = {
      username: fresh('countess'),
      display_name: 'Ada <b>Lovelace</b>',
      bio: "Robert'); drop table profiles; --",
      status_message: 'weaving algebra',
      locale: 'en-GB',
    }

    const { data, error } = await ada.client.from('profiles').update(change).eq('id', ada.id).select().single()

    expect(error).toBeNull()
    expect(data).toMatchObject(change)
  })

  it('V-03 is not updated by others, for whom the row looks absent', async () => {
    const [ada, mallory] = await Promise.all([signUp(), signUp()])

    const { data, error } = await mallory.client.from('profiles').update({ bio: 'hacked' }).eq('id', ada.id).select()

    expect({ data, error }).toEqual({ data: [], error: null })
    expect((await profileOf(ada))!.bio).toBe('')
  })

  it.each([
    ['status', { status: 'active' }],
    ['did', { did: 'did:web:evil.example' }],
    ['id', { id: randomUUID() }],
    ['created_at', { created_at: '2000-01-01' }],
  ])('V-03 does not let its owner write %s', async (_column, change) => {
    const ada = await signUp()

    const result = await ada.client
      .from('profiles')
      .update(change as never)
      .eq('id', ada.id)

    expect(result.status).toBe(403)
    expect(result.error?.code).toBe('42501')
  })

  it.each([
    ['a display name of two lines', { display_name: 'a\nb' }, '23514'],
    ['a display name over 50 characters', { display_name: 'x'.repeat(51) }, '23514'],
    ['an empty display name', { display_name: '' }, '23514'],
    ['a bio over 500 characters', { bio: 'x'.repeat(501) }, '23514'],
    ['a username with spaces', { username: 'a b c' }, '23514'],
    ['a locale that is no tag', { locale: '<script>' }, '23514'],
    ["somebody else's avatar", { avatar_path: `${randomUUID()}/x.png` }, '23514'],
    ['NUL', { bio: 'a\u0000b' }, '22P05'],
    ['a lone surrogate', { bio: 'a\ud800b' }, '22P02'],
    ['an unknown field', { nickname: 'x' }, 'PGRST204'],
    ['a field of another type', { display_name: null }, '23502'],
  ])('V-03 refuses %s and changes nothing', async (_what, change, sqlstate) => {
    const ada = await signUp()
    const before = await profileOf(ada)

    const result = await ada.client
      .from('profiles')
      .update(change as never)
      .eq('id', ada.id)

    expect([result.status, result.error?.code]).toEqual([400, sqlstate])
    expect(await profileOf(ada)).toEqual(before)
  })

  it('K-12 refuses a username that is taken, reserved or was somebody else’s', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])
    const rename = (person: Person, username: string) =>
      person.client.from('profiles').update({ username }).eq('id', person.id)
    const { username: old } = (await profileOf(bob))!

    const taken = await rename(ada, old.toUpperCase())
    const reserved = await rename(ada, 'administrator')
    await rename(bob, fresh('bob'))
    const retired = await rename(ada, old)

    for (const refused of [taken, reserved, retired]) {
      expect([refused.status, code(refused)]).toEqual([409, 'username_unavailable'])
    }
  })

  it('K-12 keeps a name reserved that its holder is giving up in this moment', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])
    const { username } = (await profileOf(bob))!
    const holder = session()
    await holder`begin`
    await holder`update public.profiles set username = ${fresh('gone')} where id = ${bob.id}`

    const waiting = ada.client
      .from('profiles')
      .update({ username })
      .eq('id', ada.id)
      .then((result) => result)
    await until(
      async () =>
        (await database()`select from pg_locks where locktype = 'advisory' and not granted and objsubid = 1`).length,
    )
    await holder`commit`

    expect(code(await waiting)).toBe('username_unavailable')
  })

  it('shows mature content only after a confirmation by rpc', async () => {
    const ada = await signUp()

    const confirmed = await ada.client.rpc('confirm_mature_content')
    const forged = await ada.client
      .from('profile_private')
      .update({ mature_confirmed_at: null } as never)
      .eq('id', ada.id)

    expect(Date.parse(confirmed.data as string)).not.toBeNaN()
    expect(forged.error?.code).toBe('42501')
    expect((await ada.client.from('profile_private').select()).data).toHaveLength(1)
  })
})

describe('blocks', () => {
  it('hide both people from each other and from nobody else', async () => {
    const [ada, bob, carol] = await Promise.all([signUp(), signUp(), signUp()])

    const blocked = await ada.client.from('blocks').insert({ blocked_id: bob.id })

    expect(blocked.error).toBeNull()
    expect(await profileOf(bob, ada.client)).toBeUndefined()
    expect(await profileOf(ada, bob.client)).toBeUndefined()
    expect(await profileOf(ada, carol.client)).toBeDefined()
    expect((await bob.client.from('blocks').select()).data).toEqual([])
    await ada.client.from('blocks').delete().eq('blocked_id', bob.id)
    expect(await profileOf(ada, bob.client)).toBeDefined()
  })

  it('cannot be made for somebody else, of oneself, or twice', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])

    const forged = await ada.client.from('blocks').insert({ blocker_id: bob.id, blocked_id: ada.id })
    const self = await ada.client.from('blocks').insert({ blocked_id: ada.id })
    await ada.client.from('blocks').insert({ blocked_id: bob.id })
    const twice = await ada.client.from('blocks').insert({ blocked_id: bob.id })

    expect([forged, self, twice].map((result) => result.error?.code)).toEqual(['42501', '23514', '23505'])
    expect(twice.status).toBe(409)
  })
})

describe('avatars', () => {
  const png = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
    'base64',
  )
  const upload = (person: Person, path: string, body: Buffer = png, contentType = 'image/png') =>
    person.client.storage.from('avatars').upload(path, body, { contentType })

  it('are uploaded into one’s own folder and read by URL', async () => {
    const ada = await signUp()
    const path = `${ada.id}/me.png`

    const { error } = await upload(ada, path)
    const { error: chosen } = await ada.client.from('profiles').update({ avatar_path: path }).eq('id', ada.id)

    expect([error, chosen]).toEqual([null, null])
    const shown = await fetch(anonymous().storage.from('avatars').getPublicUrl(path).data.publicUrl)
    expect(Buffer.from(await shown.arrayBuffer()).equals(png)).toBe(true)
  })

  it('are refused in another folder, of another type and over 5 MiB', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])

    const foreign = await upload(ada, `${bob.id}/me.png`)
    const common = await upload(ada, 'default/avatar2.png')
    const html = await upload(ada, `${ada.id}/me.html`, Buffer.from('<script>'), 'text/html')
    const svg = await upload(ada, `${ada.id}/me.svg`, Buffer.from('<svg/>'), 'image/svg+xml')
    const large = await upload(ada, `${ada.id}/me.png`, Buffer.alloc(5 * 1024 * 1024 + 1))

    for (const refused of [foreign, common, html, svg, large]) expect(refused.error).not.toBeNull()
    const kept = await database()`select name from storage.objects where owner_id = ${ada.id}`
    expect(kept).toHaveLength(0)
  })

  it('of one person are not listed or deleted by another', async () => {
    const [ada, bob] = await Promise.all([signUp(), signUp()])
    await upload(ada, `${ada.id}/me.png`)

    const listed = await bob.client.storage.from('avatars').list(ada.id)
    await bob.client.storage.from('avatars').remove([`${ada.id}/me.png`])

    expect(listed.data).toEqual([])
    expect((await ada.client.storage.from('avatars').list(ada.id)).data).toHaveLength(1)
  })
})

describe('app roles', () => {
  const makeAdmin = async () => {
    const person = await signUp()
    // As the first admin is made: in the dashboard.
    await database()`select admin.grant_role(${person.id}, 'admin')`
    return person
  }

  it('S-03 let an admin read any user by id, in the dashboard and by rpc', async () => {
    const [root, ada] = await Promise.all([makeAdmin(), signUp()])

    const { data } = await root.client.rpc('admin_get_user', { user_id: ada.id })
    const [row] = await database()`select email, username from admin.users where id = ${ada.id}`

    expect(data).toMatchObject({ id: ada.id, email: ada.email, roles: [], status: 'active' })
    expect(row!.email).toBe(ada.email)
  })

  it('S-03 refuse everybody else, and an unknown user looks absent', async () => {
    const [root, ada] = await Promise.all([makeAdmin(), signUp()])

    const refused = await ada.client.rpc('admin_get_user', { user_id: ada.id })
    const absent = await root.client.rpc('admin_get_user', { user_id: randomUUID() })
    const visitor = await anonymous().rpc('admin_get_user', { user_id: ada.id })

    expect([refused.status, code(refused)]).toEqual([403, 'admin_role_required'])
    expect([absent.status, code(absent)]).toEqual([404, 'user_not_found'])
    expect(visitor.status).toBe(401)
  })

  it('are granted by admins, stand in the next token, and end at once where it matters', async () => {
    const [root, ada] = await Promise.all([makeAdmin(), signUp()])

    const granted = await root.client.rpc('grant_role', { user_id: ada.id, role: 'admin' })
    const { data } = await ada.client.auth.refreshSession()
    const claims = JSON.parse(Buffer.from(data.session!.access_token.split('.')[1]!, 'base64url').toString())
    await root.client.rpc('revoke_role', { user_id: ada.id, role: 'admin' })
    const afterwards = await ada.client.rpc('admin_get_user', { user_id: ada.id })

    expect(granted.error).toBeNull()
    expect(claims.app_metadata.roles).toEqual(['admin'])
    expect(code(afterwards)).toBe('admin_role_required')
  })

  it('are not granted by people to themselves, nor by their own metadata', async () => {
    const ada = await signUp()

    const granted = await ada.client.rpc('grant_role', { user_id: ada.id, role: 'admin' })
    await ada.client.auth.updateUser({ data: { roles: ['admin'] } })
    const { data } = await ada.client.rpc('me')

    expect(code(granted)).toBe('admin_role_required')
    expect((data as { roles: string[] }).roles).toEqual([])
  })
})

it('a suspended account is hidden and refused while its token still lives', async () => {
  const [ada, bob] = await Promise.all([signUp(), signUp()])

  await database()`select admin.set_account_status(${ada.id}, 'suspended')`

  expect(await profileOf(ada, bob.client)).toBeUndefined()
  expect(code(await ada.client.rpc('confirm_mature_content'))).toBe('account_not_active')
  expect((await ada.client.from('blocks').insert({ blocked_id: bob.id })).error?.code).toBe('42501')
})

it('the service reads profiles and cannot write them', async () => {
  const ada = await signUp()

  const read = await admin().from('profiles').select('id').eq('id', ada.id)
  const written = await admin().from('profiles').update({ bio: 'x' }).eq('id', ada.id)

  expect(read.data).toEqual([{ id: ada.id }])
  expect(written.error?.code).toBe('42501')
})
