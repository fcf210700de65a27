import { deepEqual, equal, throws } from 'node:assert/strict'
import { readEnv } from '../../functions/_shared/env.ts'
import { createService } from '../../functions/_shared/http.ts'
import { addressList, clientAddress } from '../../functions/_shared/limits/address.ts'
import type { Call } from '../../functions/_shared/limits/limiter.ts'
import { limitRate } from '../../functions/_shared/limits/middleware.ts'

Deno.test('addresses and networks of both kinds are told from others', () => {
  const listed = addressList('203.0.113.7, 10.0.0.0/8, 2001:db8::/32,::1, 0.0.0.0/32')
  for (const address of [
    '203.0.113.7',
    '10.255.0.1',
    '2001:db8:1::2',
    '2001:DB8::1',
    '::1',
    '::ffff:10.1.2.3',
    '0.0.0.0',
  ])
    equal(listed(address), true, address)
  for (const address of [
    '203.0.113.8',
    '11.0.0.1',
    '2001:db9::1',
    '::2',
    '0.0.0.1',
    '10.0.0.256',
    'localhost',
    '',
    null,
  ])
    equal(listed(address), false, String(address))
  equal(addressList('')('127.0.0.1'), false)
  equal(addressList('0.0.0.0/0')('198.51.100.1'), true)
  equal(addressList('0.0.0.0/0')('2001:db8::1'), false)
  for (const wrong of ['10.0.0.0/33', '10.0.0.0/x', 'example.com', '2001:db8', '1::2::3', '::/129', '10.0.0.1/-1'])
    throws(() => addressList(wrong), /No address/, wrong)
})

Deno.test('of a list of forwarders the last one counts, and what is no address does not', () => {
  const of = (value: string) => clientAddress(new Headers({ 'x-forwarded-for': value }), 'x-forwarded-for')
  equal(of('198.51.100.1, 203.0.113.7'), '203.0.113.7')
  equal(of('203.0.113.7, unknown'), null)
  equal(clientAddress(new Headers(), 'x-forwarded-for'), null)
})

const variables: Record<string, string> = {
  SUPABASE_URL: 'http://127.0.0.1:1',
  SUPABASE_DB_URL: 'postgresql://postgres:secret@127.0.0.1:1/postgres',
  SUPABASE_PUBLISHABLE_KEYS: '{"default":"sb_publishable_x"}',
  SUPABASE_SECRET_KEYS: '{"default":"sb_secret_x"}',
  LOG_LEVEL: 'error',
  RATE_LIMIT_EXEMPT: '203.0.113.0/24',
}

Deno.test('known-good addresses are not asked about, and routes are named by their patterns', async () => {
  const env = readEnv((name) => variables[name])
  const calls: Call[] = []
  env.rates.limiter = {
    take: (call) => {
      calls.push(call)
      return Promise.resolve(null)
    },
  }
  const app = createService(env, 'x')
  app.use(limitRate(env))
  app.get('/things/:id{.+}', (c) => c.text('ok'))
  app.get('/', (c) => c.text('ok'))
  const from = (address: string, path: string) =>
    app.request(path, { headers: { 'cf-connecting-ip': address, 'x-forwarded-for': '203.0.113.1' } })

  await from('203.0.113.9', '/x/things/a/b')
  await from('198.51.100.1', '/x/things/a/b')
  await from('198.51.100.1', '/x')

  deepEqual(calls, [
    { route: 'x/things/:id', userId: null, address: '198.51.100.1' },
    { route: 'x', userId: null, address: '198.51.100.1' },
  ])
})

Deno.test('a wrong list of exempt addresses is named at the start', () => {
  throws(() => readEnv((name) => ({ ...variables, RATE_LIMIT_EXEMPT: 'office' })[name]), /RATE_LIMIT_EXEMPT/)
})
