import { type Context, Hono } from 'hono'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { readProject } from '../config.ts'
import { functionEnvironment } from '../env.ts'
import type { Stack } from '../stack.ts'
import { chooser, failure, formPost } from './pages.ts'
import { type Person, type ProviderName, personOf, providers } from './people.ts'

interface Grant {
  provider: ProviderName
  clientId: string
  redirectUri: string
  scope: string
  nonce?: string
  challenge?: string
  challengeMethod: string
  person: Person
  fails: boolean
  expires: number
}

const codeMs = 60_000
const tokenSeconds = 3600

/**
 * Stand-ins for the sign-in providers, each an OAuth 2 server at `<url>/sandbox/oidc/<provider>` with the real one's
 * paths and answers; google and apple speak OpenID Connect. Codes work once and for a minute, PKCE and the client's
 * secret are checked. Whoever `login_hint` or `as` names by e-mail address is signed in at once, otherwise a page asks.
 * `name` sets the person's name, `sandbox=denied|unverified|no-email|token-error` plays what can go wrong.
 */
export function identityProviders(stack: Stack): Hono {
  const app = new Hono()
  const grants = new Map<string, Grant>()
  const tokens = new Map<string, Grant>()
  const { external } = readProject(stack.project, functionEnvironment(stack)).auth
  const clientIds = (name: ProviderName) => (external[name]?.client_id ?? '').split(',').map((id) => id.trim())
  const issuerOf = (name: ProviderName) => `${stack.url}/sandbox/oidc/${name}`

  app.all('/:provider/*', async (c): Promise<Response> => {
    const name = c.req.param('provider') as ProviderName
    if (!Object.hasOwn(providers, name)) {
      return c.json(
        { error: 'not_found', error_description: `The sandbox knows ${Object.keys(providers).join(', ')}.` },
        404,
      )
    }
    const provider = providers[name]
    const path = c.req.path.slice(c.req.path.indexOf(`/${name}/`) + name.length + 1)
    if (c.req.method === 'POST') return path === provider.token ? exchange(c, name) : missing(c, name, path)
    if (path === provider.authorize) return authorize(c, name)
    if (provider.idToken && path === '/.well-known/openid-configuration') return c.json(discovery(name))
    if (provider.idToken && path === '/jwks') return c.json({ keys: [(await keys()).publicJwk] })
    return Object.hasOwn(provider.resources, path) ? resource(c, name, path) : missing(c, name, path)
  })

  const missing = (c: Context, name: string, path: string) =>
    c.json({ error: 'not_found', error_description: `${name} has no ${c.req.method} ${path} here.` }, 404)

  function discovery(name: ProviderName) {
    const base = issuerOf(name)
    return {
      issuer: base,
      authorization_endpoint: base + providers[name].authorize,
      token_endpoint: base + providers[name].token,
      ...(providers[name].resources['/userinfo'] ? { userinfo_endpoint: `${base}/userinfo` } : {}),
      jwks_uri: `${base}/jwks`,
      response_types_supported: ['code'],
      response_modes_supported: ['query', 'form_post'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256'],
      code_challenge_methods_supported: ['S256', 'plain'],
      token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    }
  }

  function authorize(c: Context, name: ProviderName) {
    const provider = providers[name]
    const query = c.req.query()
    // Errors about the client or its address are shown, never sent on: such an address cannot be trusted.
    if (!query.client_id || !clientIds(name).includes(query.client_id)) {
      return c.html(failure('invalid_client: the client id is not the configured one'), 401)
    }
    if (!isCallback(query.redirect_uri, external[name]?.redirect_uri)) {
      return c.html(failure(`redirect_uri_mismatch: ${query.redirect_uri ?? '(none)'} is not registered`), 400)
    }
    const answer = (result: Record<string, string>) => {
      const all = { ...result, ...(query.state === undefined ? {} : { state: query.state }) }
      if (query.response_mode === 'form_post') return c.html(formPost(query.redirect_uri!, all))
      const target = new URL(query.redirect_uri!)
      for (const [key, value] of Object.entries(all)) target.searchParams.set(key, value)
      return c.redirect(target.href, 302)
    }
    const invalid = (error_description: string) => answer({ error: 'invalid_request', error_description })
    if (query.response_type !== 'code') return answer({ error: 'unsupported_response_type' })
    if (provider.requiresPkce && !query.code_challenge) return invalid('code_challenge is required')
    if (provider.formPostScopes?.test(query.scope ?? '') && query.response_mode !== 'form_post') {
      return invalid('response_mode must be form_post when name or email scope is requested.')
    }
    if (query.sandbox === 'denied')
      return answer({ error: provider.denied, error_description: 'The user denied the request.' })
    const email = query.as ?? query.login_hint
    if (!email) return c.html(chooser(name, query))

    const person = personOf(name, email, {
      name: query.name,
      unverified: query.sandbox === 'unverified',
      noEmail: query.sandbox === 'no-email',
    })
    const code = keep(grants, {
      provider: name,
      clientId: query.client_id,
      redirectUri: query.redirect_uri!,
      scope: query.scope ?? '',
      nonce: query.nonce,
      challenge: query.code_challenge,
      challengeMethod: query.code_challenge_method ?? 'plain',
      person,
      fails: query.sandbox === 'token-error',
      expires: Date.now() + codeMs,
    })
    return answer({ code, ...provider.callbackExtra?.(person) })
  }

  async function exchange(c: Context, name: ProviderName) {
    const provider = providers[name]
    const form = Object.fromEntries(new URLSearchParams(await c.req.text()))
    const refuse = (error: string, description: string, status: 400 | 401 = 400) =>
      provider.tokenError?.(error, description) ?? c.json({ error, error_description: description }, status)

    const client = clientOf(c.req.header('authorization'), form)
    if (!client.id || !clientIds(name).includes(client.id) || client.secret !== external[name]?.secret) {
      return refuse('invalid_client', 'The client id or secret is wrong.', 401)
    }
    if (form.grant_type !== 'authorization_code') return refuse('unsupported_grant_type', 'Only authorization_code.')
    const grant = grants.get(form.code ?? '')
    // One use, whatever comes of it: a code that was tried with a wrong verifier is burnt.
    grants.delete(form.code ?? '')
    if (!grant || grant.provider !== name || grant.clientId !== client.id || grant.expires < Date.now()) {
      return refuse('invalid_grant', 'The code is unknown, used or expired.')
    }
    if (grant.redirectUri !== form.redirect_uri)
      return refuse('invalid_grant', 'redirect_uri differs from the one that got the code.')
    if (grant.challenge && grant.challenge !== (await challengeOf(form.code_verifier ?? '', grant.challengeMethod))) {
      return refuse('invalid_grant', 'The code verifier does not match.')
    }
    if (grant.fails) return refuse('server_error', 'The provider is having a bad day.')

    const body: Record<string, unknown> = {
      access_token: keep(tokens, { ...grant, expires: Date.now() + tokenSeconds * 1000 }),
      token_type: 'Bearer',
      scope: grant.scope,
      expires_in: tokenSeconds,
      refresh_token: random(),
    }
    const claims = provider.idToken?.(grant.person)
    if (claims)
      body.id_token = await idToken(name, { ...claims, aud: client.id, ...(grant.nonce ? { nonce: grant.nonce } : {}) })
    return provider.tokenAnswer?.(body, c.req.raw) ?? c.json(body, 200, { 'cache-control': 'no-store' })
  }

  function resource(c: Context, name: ProviderName, path: string) {
    const grant = tokens.get(/^(?:Bearer|token) (\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1] ?? '')
    if (!grant || grant.provider !== name || grant.expires < Date.now()) {
      const refusal = { error: 'invalid_token', error_description: 'The access token is unknown or expired.' }
      return c.json(refusal, 401, { 'www-authenticate': 'Bearer error="invalid_token"' })
    }
    return c.json(providers[name].resources[path]!(grant.person, c.req.query()))
  }

  /** What is registered with a provider: the stack's own callback, by either name of this machine, or the configured one. */
  function isCallback(uri: string | undefined, configured: string | undefined): boolean {
    const own = `${stack.url}/auth/v1/callback`
    return Boolean(uri) && [own, own.replace('127.0.0.1', 'localhost'), configured].includes(uri)
  }

  async function idToken(name: ProviderName, claims: Record<string, unknown>): Promise<string> {
    const { privateKey } = await keys()
    return new SignJWT(claims)
      .setProtectedHeader({ alg: 'RS256', kid, typ: 'JWT' })
      .setIssuer(issuerOf(name))
      .setIssuedAt()
      .setExpirationTime(`${tokenSeconds}s`)
      .sign(privateKey)
  }

  // New with each start, so that a verifier which has kept the old key asks for the new one.
  const kid = random()
  let made: Promise<{ privateKey: CryptoKey; publicJwk: object }> | undefined
  /** RSA as the real ones; made at first use, because making it takes longer than everything else here. */
  function keys() {
    made ??= generateKeyPair('RS256', { extractable: true }).then(async ({ privateKey, publicKey }) => ({
      privateKey,
      publicJwk: { ...(await exportJWK(publicKey)), kid, alg: 'RS256', use: 'sig' },
    }))
    return made
  }

  return app
}

const random = () => crypto.getRandomValues(new Uint8Array(24)).toBase64({ alphabet: 'base64url' })

const kept = 10_000

/** Files a grant under a new secret; the oldest go when there are too many. */
function keep(grants: Map<string, Grant>, grant: Grant): string {
  const secret = random()
  grants.set(secret, grant)
  if (grants.size > kept) grants.delete(grants.keys().next().value!)
  return secret
}

/** Basic, whose parts are form-encoded (RFC 6749 2.3.1), or fields of the body. */
function clientOf(authorization: string | undefined, form: Record<string, string>): { id: string; secret: string } {
  const basic = /^Basic (\S+)$/i.exec(authorization ?? '')?.[1]
  if (!basic) return { id: form.client_id ?? '', secret: form.client_secret ?? '' }
  try {
    const [id = '', ...rest] = atob(basic).split(':')
    return { id: decodeURIComponent(id), secret: decodeURIComponent(rest.join(':')) }
  } catch {
    return { id: '', secret: '' }
  }
}

async function challengeOf(verifier: string, method: string): Promise<string> {
  if (method.toLowerCase() !== 's256') return verifier
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))
  return new Uint8Array(digest).toBase64({ alphabet: 'base64url', omitPadding: true })
}
