import { Hono } from 'hono'
import { html } from 'hono/html'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { readProject } from '../config.ts'
import { functionEnvironment } from '../env.ts'
import type { Stack } from '../stack.ts'
import { type Person, type ProviderName, personOf, providers } from './people.ts'

interface Grant {
  provider: ProviderName
  clientId: string
  redirectUri: string
  scope: string
  nonce?: string
  challenge?: string
  challengeMethod?: string
  person: Person
  expires: number
}

/** The real ones have their pages and endpoints at addresses of their own. */
const below = (path: string) => `/:provider/${path}`

const codeSeconds = 60
const tokenSeconds = 3600

/**
 * Stand-ins for the sign-in providers, one OAuth 2 / OpenID Connect server per name, at
 * `<url>/sandbox/oidc/<provider>`. A person is whoever the request says: `login_hint` or `as` names the e-mail address
 * and is approved at once, otherwise a page asks. Further parameters of `authorize` make the cases that matter:
 * `name`, `unverified=1` (address not verified), `no_email=1`, `deny=1` (the person declines).
 */
export function identityProviders(stack: Stack): Hono {
  const app = new Hono()
  const grants = new Map<string, Grant>()
  const tokens = new Map<string, Grant>()
  const keys = signingKeys()

  const issuer = (provider: string) => `${stack.url}/sandbox/oidc/${provider}`
  const { external } = readProject(stack.project, functionEnvironment(stack)).auth
  const settings = (provider: ProviderName) => external[provider]
  const clientIds = (provider: ProviderName) =>
    (settings(provider)?.client_id ?? '')
      .split(',')
      .map((id) => id.trim())
      .filter(Boolean)

  app.use('/:provider/*', async (c, next) => {
    if (!Object.hasOwn(providers, c.req.param('provider'))) {
      return c.json(
        { error: 'not_found', error_description: `The sandbox knows ${Object.keys(providers).join(', ')}.` },
        404,
      )
    }
    await next()
  })

  app.get('/:provider/.well-known/openid-configuration', (c) => {
    const base = issuer(c.req.param('provider'))
    return c.json({
      issuer: base,
      authorization_endpoint: `${base}/authorize`,
      token_endpoint: `${base}/token`,
      userinfo_endpoint: `${base}/userinfo`,
      jwks_uri: `${base}/jwks`,
      response_types_supported: ['code'],
      response_modes_supported: ['query', 'form_post'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256'],
      code_challenge_methods_supported: ['S256', 'plain'],
      token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    })
  })
  app.get('/:provider/jwks', async (c) => c.json({ keys: [(await keys()).publicJwk] }))

  app.on(
    'GET',
    ['authorize', 'login/oauth/authorize', 'api/oauth2/authorize', 'i/oauth2/authorize'].map(below),
    (c) => {
      const provider = c.req.param('provider') as ProviderName
      const query = c.req.query()
      // Errors about the client or its address are shown, never sent on: the address cannot be trusted.
      if (!clientIds(provider).includes(query.client_id ?? ''))
        return c.html(failure('invalid_client: the client id is not the configured one'), 401)
      if (!isCallback(query.redirect_uri, settings(provider)?.redirect_uri)) {
        return c.html(failure(`redirect_uri_mismatch: ${query.redirect_uri ?? '(none)'} is not registered`), 400)
      }
      const answer = (result: Record<string, string>) => {
        const all = { ...result, ...(query.state === undefined ? {} : { state: query.state }) }
        if (query.response_mode === 'form_post') return c.html(formPost(query.redirect_uri!, all))
        const target = new URL(query.redirect_uri!)
        for (const [name, value] of Object.entries(all)) target.searchParams.set(name, value)
        return c.redirect(target.href, 302)
      }
      if (query.response_type !== 'code') return answer({ error: 'unsupported_response_type' })
      if (providers[provider].requiresPkce && !query.code_challenge) {
        return answer({ error: 'invalid_request', error_description: 'code_challenge is required' })
      }
      if (provider === 'apple' && /\b(name|email)\b/.test(query.scope ?? '') && query.response_mode !== 'form_post') {
        return answer({
          error: 'invalid_request',
          error_description: 'response_mode must be form_post when name or email scope is requested.',
        })
      }
      if (query.deny)
        return answer({ error: providers[provider].denied, error_description: 'The user denied the request.' })
      const email = query.as ?? query.login_hint
      if (!email) return c.html(chooser(provider, query))

      const person = personOf(provider, email, {
        name: query.name,
        unverified: Boolean(query.unverified),
        noEmail: Boolean(query.no_email),
      })
      const code = random()
      grants.set(code, {
        provider,
        clientId: query.client_id!,
        redirectUri: query.redirect_uri!,
        scope: query.scope ?? '',
        nonce: query.nonce,
        challenge: query.code_challenge,
        challengeMethod: query.code_challenge_method ?? 'plain',
        person,
        expires: Date.now() + codeSeconds * 1000,
      })
      return answer({ code, ...providers[provider].callbackExtra?.(person) })
    },
  )

  app.on('POST', ['token', 'login/oauth/access_token', 'api/oauth2/token', '2/oauth2/token'].map(below), async (c) => {
    const provider = c.req.param('provider') as ProviderName
    const form = Object.fromEntries(new URLSearchParams(await c.req.text()))
    const refuse = (error: string, description: string, status: 400 | 401 = 400) =>
      providers[provider].tokenError?.(error, description) ?? c.json({ error, error_description: description }, status)

    const client = clientOf(c.req.header('authorization'), form)
    const secret = settings(provider)?.secret
    if (!clientIds(provider).includes(client.id) || !secret || client.secret !== secret) {
      return refuse('invalid_client', 'The client id or secret is wrong.', 401)
    }
    if (form.grant_type !== 'authorization_code') return refuse('unsupported_grant_type', 'Only authorization_code.')
    const grant = grants.get(form.code ?? '')
    // One use, whatever comes of it: a code that was tried with a wrong verifier is burnt.
    grants.delete(form.code ?? '')
    if (!grant || grant.provider !== provider || grant.clientId !== client.id || grant.expires < Date.now()) {
      return refuse('invalid_grant', 'The code is unknown, used or expired.')
    }
    if (grant.redirectUri !== form.redirect_uri)
      return refuse('invalid_grant', 'redirect_uri differs from the one that got the code.')
    if (grant.challenge && grant.challenge !== (await challengeOf(form.code_verifier ?? '', grant.challengeMethod))) {
      return refuse('invalid_grant', 'The code verifier does not match.')
    }
    const accessToken = random()
    tokens.set(accessToken, { ...grant, expires: Date.now() + tokenSeconds * 1000 })
    const claims = providers[provider].idToken?.(grant.person)
    const body: Record<string, unknown> = {
      access_token: accessToken,
      token_type: 'Bearer',
      scope: grant.scope,
      expires_in: tokenSeconds,
      refresh_token: random(),
    }
    if (claims)
      body.id_token = await idToken(issuer(provider), {
        ...claims,
        aud: client.id,
        ...(grant.nonce ? { nonce: grant.nonce } : {}),
      })
    return providers[provider].token?.(body, c.req.raw) ?? c.json(body, 200, { 'cache-control': 'no-store' })
  })

  app.get('/:provider/*', (c) => {
    const provider = c.req.param('provider') as ProviderName
    const path = c.req.path.slice(c.req.path.indexOf(`/${provider}/`) + provider.length + 1)
    const resource = providers[provider].resources[path]
    if (!resource) return c.json({ error: 'not_found', error_description: `${provider} has no ${path} here.` }, 404)
    const grant = tokens.get(/^(?:Bearer|token) (\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1] ?? '')
    if (!grant || grant.provider !== provider || grant.expires < Date.now()) {
      return c.json({ error: 'invalid_token', error_description: 'The access token is unknown or expired.' }, 401, {
        'www-authenticate': 'Bearer error="invalid_token"',
      })
    }
    return c.json(resource(grant.person) as object)
  })

  /** What is registered with a provider: the stack's own callback, by either name of this machine, or the configured one. */
  function isCallback(uri: string | undefined, configured: string | undefined): boolean {
    const own = `${stack.url}/auth/v1/callback`
    return Boolean(uri) && [own, own.replace('127.0.0.1', 'localhost'), configured].includes(uri)
  }

  /** RSA as the real ones; made at first use, because making it takes longer than everything else here. */
  function signingKeys() {
    let made: Promise<{ privateKey: CryptoKey; publicJwk: object }> | undefined
    return () =>
      (made ??= generateKeyPair('RS256', { extractable: true }).then(async ({ privateKey, publicKey }) => ({
        privateKey,
        publicJwk: { ...(await exportJWK(publicKey)), kid: 'sandbox', alg: 'RS256', use: 'sig' },
      })))
  }

  async function idToken(iss: string, claims: Record<string, unknown>): Promise<string> {
    return new SignJWT({ ...claims, iss })
      .setProtectedHeader({ alg: 'RS256', kid: 'sandbox', typ: 'JWT' })
      .setIssuedAt()
      .setExpirationTime(`${tokenSeconds}s`)
      .sign((await keys()).privateKey)
  }

  return app
}

const random = () => crypto.getRandomValues(new Uint8Array(24)).toBase64({ alphabet: 'base64url' })

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

async function challengeOf(verifier: string, method: string | undefined): Promise<string> {
  if (method !== 'S256') return verifier
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier))
  return new Uint8Array(digest).toBase64({ alphabet: 'base64url', omitPadding: true })
}

const failure = (message: string) =>
  html`<!doctype html><title>Sign-in failed</title><h1>Sign-in failed</h1><p>${message}</p>`

/** The page a person sees: who do you want to be, or cancel. */
function chooser(provider: string, query: Record<string, string>) {
  const hidden = Object.entries(query).map(
    ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
  )
  return html`<!doctype html><html lang="en"><meta charset="utf-8"><title>Sandbox: sign in with ${provider}</title>
    <body style="font:16px/1.5 system-ui;max-width:24rem;margin:4rem auto">
    <h1>Sign in with ${provider}</h1><p>This is the sandbox: be whoever you like.</p>
    <form method="get">${hidden}<input name="as" type="email" placeholder="you@example.com" required autofocus>
      <button>Continue</button> <button name="deny" value="1" formnovalidate>Cancel</button></form></body></html>`
}

/** `response_mode=form_post`: the browser itself posts the answer. */
function formPost(target: string, fields: Record<string, string>) {
  const hidden = Object.entries(fields).map(
    ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
  )
  return html`<!doctype html><title>Signing in</title><body onload="document.forms[0].submit()">
    <form method="post" action="${target}">${hidden}<noscript><button>Continue</button></noscript></form></body>`
}
