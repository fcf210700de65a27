import { exitCode, Failure } from './failure.ts'
import type { LoginRole, Stack } from './stack.ts'

/** Everything secret that one data folder keeps for its whole life, so that keys and tokens survive a restart. */
export type Secrets = Stack['keys'] & { passwords: Record<LoginRole, string> }

const random = (bytes: number) => base64url(crypto.getRandomValues(new Uint8Array(bytes)))

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

const sha256 = async (text: string) =>
  new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))

/** The key of this data folder's users' tokens. Its id is the RFC 7638 thumbprint: clients cache keys by id. */
async function newSigningKey(): Promise<Stack['keys']['signingKey']> {
  const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
  const { crv, kty, x, y, d } = await crypto.subtle.exportKey('jwk', pair.privateKey)
  const kid = base64url(await sha256(JSON.stringify({ crv, kty, x, y })))
  return { kty, crv, x, y, d, kid, alg: 'ES256', use: 'sig', key_ops: ['sign'] }
}

async function newSecrets(): Promise<Secrets> {
  const apiKey = async (kind: string) => {
    const body = random(16)
    return `sb_${kind}_${body}_${base64url(await sha256(body)).slice(0, 8)}`
  }
  return {
    publishable: await apiKey('publishable'),
    secret: await apiKey('secret'),
    jwtSecret: random(48),
    signingKey: await newSigningKey(),
    localSecret: random(32),
    passwords: {
      supabase_admin: random(24),
      postgres: random(24),
      supabase_auth_admin: random(24),
      rest: random(24),
    },
  }
}

/** Reads `<data>/keys.json`, or makes it for a folder that has no database yet. */
export async function loadSecrets(data: string, hasDatabase: boolean): Promise<Secrets> {
  const file = `${data}/keys.json`
  try {
    const secrets: Secrets = JSON.parse(Deno.readTextFileSync(file))
    if (!secrets.passwords?.supabase_admin || !secrets.signingKey?.kid) throw new Error('it is not complete')
    return secrets
  } catch (error) {
    if (hasDatabase || !(error instanceof Deno.errors.NotFound)) {
      throw new Failure(
        `The keys of this data cannot be read from ${file}: ${(error as Error).message}`,
        exitCode.data,
        'Put the file back, or run `npm run reset` to make the data anew.',
      )
    }
  }
  const secrets = await newSecrets()
  writePrivate(file, JSON.stringify(secrets, null, 2))
  return secrets
}

/** Writes a file that only its owner may read, all of it or nothing. */
export function writePrivate(file: string, text: string): void {
  Deno.writeTextFileSync(`${file}.new`, text, { mode: 0o600 })
  Deno.renameSync(`${file}.new`, file)
}
