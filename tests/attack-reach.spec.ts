import { describe, expect, it } from 'vitest'
import { publishableKey, signUp, url } from './support/local.ts'

describe('tables that the API does not expose', () => {
  it.each([
    'app_roles',
    'app_roles!app_roles_user_id_fkey',
    'app_roles!app_roles_granted_by_fkey',
    'users',
    'users!profiles_id_fkey',
    'watch_leases',
    'owners',
    'reserved_usernames',
    'idempotency_keys',
    'outbox',
  ])('%s is not embedded, and nothing tells that it is there', async (table) => {
    const { token } = await signUp()

    const response = await fetch(`${url}/rest/v1/profiles?select=id,${table}(*)`, {
      headers: { apikey: publishableKey, authorization: `Bearer ${token}` },
    })
    const body = await response.json()

    expect([response.status, body.code]).toEqual([400, 'PGRST200'])
    expect(JSON.stringify(body)).not.toMatch(/private|auth\.|_fkey using/)
  })
})
