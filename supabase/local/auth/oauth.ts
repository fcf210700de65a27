import { createHmac } from 'node:crypto'
import { isUuid, requireUser } from './account.ts'
import {
  type Auth,
  type Call,
  type Handler,
  inTransaction,
  isStorable,
  type Metadata,
  readText,
  type Sql,
  type Transaction,
} from './context.ts'
import { AuthError, toAuthError } from './errors.ts'
import { challengeOf, createFlow, type Flow, isExpired, readChallenge } from './flows.ts'
import { signInAs } from './identities.ts'
import { enabledProvider, type Profile, type ProviderTokens, redeem } from './providers.ts'
import { errorRedirect, redirect, redirectTarget, withParameters } from './redirects.ts'
import { openSession } from './sessions.ts'
import type { User } from './users.ts'
import { tokensOf } from './verify.ts'

/** Parameters that are ours to set, or not for the provider to see; all others of the request reach its page. */
const RESERVED = new Set([
  ...['provider', 'scopes', 'redirect_to', 'skip_http_redirect', 'apikey', 'scope', 'response_mode', 'client_id'],
  ...[
    'client_secret',
    'redirect_uri',
    'response_type',
    'state',
    'code_challenge',
    'code_challenge_method',
    'code_verifier',
  ],
])

/** `GET /authorize`: sends the browser to the provider. */
export const authorize: Handler = async (auth, call) => redirect(await begin(auth, call), 302)

/** `GET /user/identities/authorize`: the same, to add a provider to the caller's account. */
export const linkIdentity: Handler = async (auth, call) => {
  if (!auth.settings.enable_manual_linking) {
    throw new AuthError(404, 'manual_linking_disabled', 'Manual linking is disabled')
  }
  const { user } = await requireUser(auth, call)
  const url = await begin(auth, call, user.id)
  return call.url.searchParams.has('skip_http_redirect') ? Response.json({ url }) : redirect(url, 302)
}

async function begin(auth: Auth, call: Call, linkTo?: string): Promise<string> {
  const query = call.url.searchParams
  const { name, provider, settings } = enabledProvider(auth.settings.external, query.get('provider') ?? '')
  const challenge = readChallenge(query.get('code_challenge') ?? '', query.get('code_challenge_method') ?? '')
  const endpoints = await provider.endpoints(settings.url).catch((cause) => {
    console.error(`auth: ${name} is not reachable:`, cause)
    throw new AuthError(500, 'unexpected_failure', 'Unable to reach the external provider')
  })
  const referrer = redirectTarget(auth.settings, call.request)
  const flow = await createFlow(auth.sql, { provider: name, method: 'oauth', challenge, referrer, linkTo })

  const page = new URL(endpoints.authorize)
  for (const [key, value] of query) if (!RESERVED.has(key.toLowerCase())) page.searchParams.set(key, value)
  const extra = (query.get('scopes') ?? '').split(/[\s,]+/).filter(Boolean)
  const own: Record<string, string> = {
    client_id: settings.client_id.split(',')[0]!.trim(),
    redirect_uri: callbackOf(auth, settings),
    response_type: 'code',
    scope: [...provider.scopes, ...extra].join(' '),
    // The row's random id: it cannot be guessed, works once and for five minutes.
    state: flow.id,
    ...provider.parameters,
    ...(provider.pkce
      ? { code_challenge: challengeOf(verifierOf(auth, flow), 's256'), code_challenge_method: 'S256' }
      : {}),
  }
  for (const [key, value] of Object.entries(own)) page.searchParams.set(key, value)
  return page.toString()
}

const callbackOf = (auth: Auth, settings: { redirect_uri: string }) =>
  settings.redirect_uri || `${auth.settings.issuer}/callback`

/** Our own PKCE verifier towards a provider, made again at the callback instead of being kept. */
const verifierOf = (auth: Auth, { id }: Flow) =>
  createHmac('sha256', auth.stack.keys.jwtSecret).update(`verifier:${id}`).digest('base64url')

/** `GET|POST /callback`: the provider sends the browser back. Whatever goes wrong is told to the page that began. */
export const callback: Handler = async (auth, call) => {
  const query =
    call.request.method === 'POST' ? new URLSearchParams(await readText(call.request)) : call.url.searchParams
  let flow: Flow
  try {
    flow = await take(auth.sql, query.get('state') ?? '')
  } catch (error) {
    return redirect(errorRedirect(auth.settings.site_url, toAuthError(error), true))
  }
  const target = flow.referrer ?? auth.settings.site_url
  const refusal = query.get('error')
  if (refusal) {
    const members = { error: refusal, error_description: query.get('error_description') ?? '' }
    return redirect(withParameters(target, members, members), 302)
  }
  try {
    const { profile, tokens } = await identify(auth, flow, query)
    const outcome = await inTransaction(auth, (tx) => complete(auth, tx, call, flow, profile, tokens))
    if (outcome instanceof AuthError) throw outcome
    return redirect(outcome, 302)
  } catch (error) {
    return redirect(errorRedirect(target, toAuthError(error), true), 302)
  }
}

/** The flow of a state. Taking marks it, so of two callbacks with the same state the second finds none. */
async function take(sql: Sql, state: string): Promise<Flow> {
  if (!state) throw new AuthError(400, 'bad_oauth_callback', 'OAuth state parameter missing')
  if (!isUuid(state)) throw new AuthError(400, 'bad_oauth_state', 'OAuth state parameter is invalid')
  const [flow] = await sql<Flow[]>`
    update auth.flow_state set auth_code_issued_at = now(), updated_at = now()
    where id = ${state} and authentication_method = 'oauth' and auth_code_issued_at is null returning *`
  if (!flow) throw new AuthError(400, 'bad_oauth_state', 'OAuth state not found or expired')
  if (isExpired(flow)) throw new AuthError(400, 'bad_oauth_state', 'OAuth state has expired')
  return flow
}

async function identify(auth: Auth, flow: Flow, query: URLSearchParams) {
  const code = query.get('code') ?? ''
  if (!code || !isStorable(code)) {
    throw new AuthError(400, 'bad_oauth_callback', 'OAuth callback with missing authorization code missing')
  }
  const enabled = enabledProvider(auth.settings.external, flow.provider_type)
  const { name, provider, settings } = enabled
  const failed = (message: string) => (cause: unknown) => {
    console.error(`auth: ${name}: ${message}:`, cause)
    throw new AuthError(500, 'unexpected_failure', message)
  }
  const endpoints = await provider.endpoints(settings.url).catch(failed('Unable to reach the external provider'))
  const fields = {
    code,
    redirect_uri: callbackOf(auth, settings),
    ...(provider.pkce ? { code_verifier: verifierOf(auth, flow) } : {}),
  }
  const tokens = await redeem(enabled, endpoints, fields).catch(
    failed(`Unable to exchange external code: ${code.slice(0, 4)}`),
  )
  const profile = await provider
    .profile(endpoints, tokens, settings)
    .catch(failed('Error getting user profile from external provider'))
  if (name === 'apple') profile.claims = { ...profile.claims, ...appleName(query.get('user')) }
  return { profile, tokens }
}

/** Apple tells the name once, beside the code. */
function appleName(text: string | null): Metadata {
  try {
    const { firstName = '', lastName = '' } = JSON.parse(text ?? '{}').name ?? {}
    const name = `${firstName} ${lastName}`.trim()
    return name && isStorable(name) ? { name, full_name: name } : {}
  } catch {
    return {}
  }
}

/** Signs the person in and says where the browser goes with the proof: a code for PKCE clients, else the tokens. */
async function complete(
  auth: Auth,
  tx: Transaction,
  call: Call,
  flow: Flow,
  profile: Profile,
  tokens: ProviderTokens,
): Promise<string | AuthError> {
  const user = await signInAs(auth, tx, call, flow, profile)
  if (user instanceof AuthError) return user
  const target = flow.referrer ?? auth.settings.site_url
  if (flow.code_challenge) return withParameters(target, { code: await keep(tx, flow, user, tokens) })
  const extra: Record<string, string> = { provider_token: tokens.access_token }
  if (tokens.refresh_token) extra.provider_refresh_token = tokens.refresh_token
  const grant = await openSession(auth, tx, call, user, 'oauth')
  await tx`delete from auth.flow_state where id = ${flow.id}`
  return withParameters(target, {}, tokensOf(grant, extra))
}

async function keep(tx: Transaction, flow: Flow, user: User, tokens: ProviderTokens): Promise<string> {
  await tx`
    update auth.flow_state set user_id = ${user.id}, provider_access_token = ${tokens.access_token},
      provider_refresh_token = ${tokens.refresh_token ?? null}, updated_at = now()
    where id = ${flow.id}`
  return flow.auth_code!
}
