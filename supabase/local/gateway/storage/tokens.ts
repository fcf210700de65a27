import { jwtVerify, SignJWT } from 'jose'
import { invalidToken } from './errors.ts'

export interface Grant {
  /** `<bucket>/<path>`: the token is good for this object alone. */
  url: string
  use: 'download' | 'upload'
  owner?: string
  upsert?: boolean
}

/** Tokens of signed URLs. They never reach the Data API: another secret signs them, and they name no role. */
export function createGrants(secret: string) {
  const key = new TextEncoder().encode(`storage:${secret}`)
  return {
    sign: (grant: Grant, seconds: number): Promise<string> =>
      new SignJWT({ ...grant })
        .setProtectedHeader({ alg: 'HS256' })
        .setIssuedAt()
        .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
        .sign(key),
    async verify(token: string | null, url: string, use: Grant['use']): Promise<Grant> {
      let payload: unknown
      try {
        payload = (await jwtVerify(token ?? '', key, { algorithms: ['HS256'] })).payload
      } catch (error) {
        throw invalidToken(error instanceof Error ? error.message : 'invalid signature')
      }
      const grant = payload as Grant
      if (grant.url !== url || grant.use !== use) throw invalidToken('The token is not for this object')
      return grant
    },
  }
}
