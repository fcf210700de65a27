import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { functionsUrl, publishableKey, signUp, url } from './support/local.ts'

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)

async function send(path: string, token: string, body: string, type = 'application/json') {
  const response = await fetch(`${path.startsWith('http') ? '' : url}${path}`, {
    method: 'POST',
    headers: { apikey: publishableKey, authorization: `Bearer ${token}`, 'content-type': type },
    body,
    signal: AbortSignal.timeout(10_000),
  })
  return { status: response.status, code: (await response.json()).code }
}

describe('JSON that nests absurdly deep', () => {
  it.each([1_500, 3_000, 5_000, 100_000])('is refused at %i levels wherever it stands in a write', async (levels) => {
    const { token } = await signUp()
    const id = randomUUID()

    for (const [path, body] of [
      ['/rest/v1/documents', `{"collection":${nested(levels)},"data":{}}`],
      ['/rest/v1/documents', `{"collection":"notes","data":{"a":${nested(levels)}}}`],
      ['/rest/v1/documents', nested(levels)],
      ['/rest/v1/documents', `[1234567890123456789,${nested(levels)}]`],
      ['/rest/v1/rpc/update_document', `{"id":"${id}","expected_version":1,"data":{"a":${nested(levels)}}}`],
      ['/rest/v1/rpc/update_document', `{"id":${nested(levels)},"expected_version":1,"data":{}}`],
    ] as const) {
      expect([path, await send(path, token, body)]).toEqual([path, { status: 400, code: '54001' }])
    }
  })

  it.each([1_500, 5_000, 100_000])('of a form or a file of values is refused at %i levels', async (levels) => {
    const { token } = await signUp()
    const deep = nested(levels)

    for (const [path, body, type] of [
      ['/rest/v1/documents', `collection=notes&data=${deep}`, 'application/x-www-form-urlencoded'],
      ['/rest/v1/documents', `collection,data\nnotes,${deep}`, 'text/csv'],
    ] as const) {
      expect([path, type, await send(path, token, body, type)]).toEqual([path, type, { status: 400, code: '54001' }])
    }
  })

  it('takes no connection away from others', async () => {
    const { token, client } = await signUp()
    const body = `{"collection":${nested(4_000)},"data":{}}`

    await Promise.all(Array.from({ length: 30 }, () => send('/rest/v1/documents', token, body)))

    expect((await client.rpc('me')).error).toBeNull()
  })

  it('is a mistake like any other to a function', async () => {
    const { token } = await signUp()

    const answer = await send(
      `${functionsUrl}/chat/messages`,
      token,
      `{"conversation_id":"${randomUUID()}","content":${nested(100_000)}}`,
    )

    expect(answer).toEqual({ status: 422, code: 'request_invalid' })
  })

  it('is refused by Auth', async () => {
    const { token } = await signUp()

    const response = await fetch(`${url}/auth/v1/user`, {
      method: 'PUT',
      headers: { apikey: publishableKey, authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: `{"data":{"a":${nested(100_000)}}}`,
    })

    expect([response.status, (await response.json()).error_code]).toEqual([400, 'validation_failed'])
  })
})

describe('addresses that nest absurdly deep', () => {
  it.each([
    ['embeds', `select=${'documents(profiles('.repeat(400)}id${'))'.repeat(400)}`],
    ['conditions', `or=(${'and('.repeat(4_000)}id.is.null${')'.repeat(4_000)})`],
    [
      'conditions on an embed',
      `select=documents(id)&documents.or=(${'and('.repeat(4_000)}id.is.null${')'.repeat(4_001)}`,
    ],
  ])('%s are refused at once', async (_what, query) => {
    const { token } = await signUp()

    const response = await fetch(`${url}/rest/v1/profiles?${query}`, {
      headers: { apikey: publishableKey, authorization: `Bearer ${token}` },
    })

    expect([response.status, (await response.json()).code]).toEqual([400, 'PGRST100'])
  })
})
