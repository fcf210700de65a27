import { createRemoteJWKSet, jwtVerify } from 'jose'
import type { Metadata } from './context.ts'
import { AuthError } from './errors.ts'
import type { ProviderSettings } from './settings.ts'

/** Who somebody is, by the word of a provider. */
export interface Profile {
  subject: string
  emails: { email: string; verified: boolean; primary: boolean }[]
  /** What is kept of them as identity_data and user_metadata. */
  claims: Metadata
}

export interface ProviderTokens {
  access_token: string
  refresh_token?: string
  id_token?: string
}

interface Endpoints {
  authorize: string
  token: string
  /** Where a provider without id tokens tells who signed in. */
  api: string
  issuer?: string
  jwks?: string
}

export interface Provider {
  scopes: string[]
  endpoints(url: string): Promise<Endpoints>
  profile(endpoints: Endpoints, tokens: ProviderTokens, settings: ProviderSettings): Promise<Profile>
  /** Extra parameters of the authorize page. */
  parameters?: Record<string, string>
  /** The provider itself wants PKCE. */
  pkce?: boolean
  /** The client proves itself by a header instead of fields of the form. */
  basic?: boolean
}

const TIMEOUT_MS = 10_000

/** JSON from a provider; anything else, and every status that is no success, throws. */
async function fetchJson<T>(url: string, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers)
  headers.set('accept', 'application/json')
  headers.set('user-agent', 'Supabase Auth')
  const response = await fetch(url, { ...init, headers, redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) })
  const text = await response.text()
  if (!response.ok) throw new Error(`${new URL(url).pathname} answered ${response.status}: ${text.slice(0, 200)}`)
  return JSON.parse(text)
}

const get = <T>(url: string, { access_token }: ProviderTokens) =>
  fetchJson<T>(url, { headers: { authorization: `Bearer ${access_token}` } })

/** Google and Apple publish where their endpoints are; `url` is their issuer. */
const discovered =
  (issuer: string) =>
  async (url: string): Promise<Endpoints> => {
    const base = url || issuer
    const found = await fetchJson<Record<string, string>>(`${base}/.well-known/openid-configuration`)
    return {
      authorize: found.authorization_endpoint!,
      token: found.token_endpoint!,
      api: found.userinfo_endpoint ?? '',
      issuer: found.issuer!,
      jwks: found.jwks_uri!,
    }
  }

const keySets = new Map<string, ReturnType<typeof createRemoteJWKSet>>()

/** Claims of an id token whose signature, issuer, audience and expiry hold. */
async function readIdToken(endpoints: Endpoints, tokens: ProviderTokens, settings: ProviderSettings) {
  if (!tokens.id_token) throw new Error('the provider sent no id_token')
  const url = endpoints.jwks!
  if (!keySets.has(url)) keySets.set(url, createRemoteJWKSet(new URL(url), { timeoutDuration: TIMEOUT_MS }))
  const audience = settings.client_id.split(',').map((id) => id.trim())
  const { payload } = await jwtVerify(tokens.id_token, keySets.get(url)!, { issuer: endpoints.issuer, audience })
  return payload as Record<string, unknown> & { sub: string }
}

const oidcProfile: Provider['profile'] = async (endpoints, tokens, settings) => {
  const token = await readIdToken(endpoints, tokens, settings)
  const string = (name: string) => (typeof token[name] === 'string' ? (token[name] as string) : '')
  const email = string('email')
  // Apple says it as text.
  const verified = token.email_verified === true || token.email_verified === 'true'
  return {
    subject: token.sub,
    emails: email ? [{ email, verified, primary: true }] : [],
    claims: describe(endpoints.issuer!, token.sub, { name: string('name'), picture: string('picture') }),
  }
}

/** The members supabase/auth gives identities of every provider; empty ones are left out. */
function describe(issuer: string, subject: string, { name = '', picture = '', login = '' }): Metadata {
  const all = {
    iss: issuer,
    sub: subject,
    provider_id: subject,
    name,
    full_name: name,
    picture,
    avatar_url: picture,
    user_name: login,
    preferred_username: login,
  }
  return { ...Object.fromEntries(Object.entries(all).filter(([, value]) => value)), phone_verified: false }
}

interface GithubUser {
  id: number
  login: string
  name: string | null
  avatar_url: string | null
}
interface GithubEmail {
  email: string
  verified: boolean
  primary: boolean
}
interface DiscordUser {
  id: string
  username: string
  global_name: string | null
  avatar: string | null
  email: string | null
  verified?: boolean
}
interface XUser {
  data: { id: string; name: string; username: string; profile_image_url?: string; confirmed_email?: string }
}

/** Paths are those supabase/auth uses, below the configured `url` or the provider's own host. */
export const providers: Record<string, Provider> = {
  google: {
    scopes: ['openid', 'email', 'profile'],
    endpoints: discovered('https://accounts.google.com'),
    profile: oidcProfile,
  },
  apple: {
    scopes: ['email', 'name'],
    endpoints: discovered('https://appleid.apple.com'),
    parameters: { response_mode: 'form_post' },
    profile: oidcProfile,
  },
  github: {
    scopes: ['user:email'],
    endpoints: (url) => {
      const base = url || 'https://github.com'
      const api = url ? `${url}/api/v3` : 'https://api.github.com'
      return Promise.resolve({
        authorize: `${base}/login/oauth/authorize`,
        token: `${base}/login/oauth/access_token`,
        api,
      })
    },
    async profile({ api }, tokens) {
      const user = await get<GithubUser>(`${api}/user`, tokens)
      const emails = await get<GithubEmail[]>(`${api}/user/emails`, tokens)
      const { name, login, avatar_url: picture } = user
      return {
        subject: String(user.id),
        emails: emails
          .filter(({ email }) => email)
          .map(({ email, verified, primary }) => ({ email, verified, primary })),
        claims: describe(api, String(user.id), { name: name ?? '', login, picture: picture ?? '' }),
      }
    },
  },
  discord: {
    scopes: ['email', 'identify'],
    endpoints: (url) => {
      const api = `${url || 'https://discord.com'}/api`
      return Promise.resolve({ authorize: `${api}/oauth2/authorize`, token: `${api}/oauth2/token`, api })
    },
    async profile({ api }, tokens) {
      const { id, username, global_name, avatar, email, verified } = await get<DiscordUser>(`${api}/users/@me`, tokens)
      const picture = avatar
        ? `https://cdn.discordapp.com/avatars/${id}/${avatar}.${avatar.startsWith('a_') ? 'gif' : 'png'}`
        : ''
      return {
        subject: id,
        emails: email ? [{ email, verified: verified === true, primary: true }] : [],
        claims: { ...describe(api, id, { name: username, picture }), custom_claims: { global_name } },
      }
    },
  },
  x: {
    scopes: ['users.email', 'tweet.read', 'users.read', 'offline.access'],
    pkce: true,
    basic: true,
    endpoints: (url) => {
      const api = url || 'https://api.x.com'
      return Promise.resolve({
        authorize: `${url || 'https://x.com'}/i/oauth2/authorize`,
        token: `${api}/2/oauth2/token`,
        api,
      })
    },
    async profile({ api }, tokens) {
      const fields = 'id,name,username,confirmed_email,profile_image_url,url,created_at'
      const { data } = await get<XUser>(`${api}/2/users/me?user.fields=${fields}`, tokens)
      return {
        subject: data.id,
        // X names an address only when it is confirmed.
        emails: data.confirmed_email ? [{ email: data.confirmed_email, verified: true, primary: true }] : [],
        claims: describe(api, data.id, {
          name: data.name,
          login: data.username,
          picture: data.profile_image_url ?? '',
        }),
      }
    },
  },
}

/** A provider that the project has switched on, with its settings. */
export function enabledProvider(external: Record<string, ProviderSettings>, asked: string) {
  const name = asked.toLowerCase()
  const refuse = (why: string) => new AuthError(400, 'validation_failed', `Unsupported provider: ${why}`)
  const provider = Object.hasOwn(providers, name) ? providers[name]! : null
  if (!provider) throw refuse(`Provider ${asked.slice(0, 40)} could not be found`)
  const settings = Object.hasOwn(external, name) ? external[name]! : null
  if (!settings?.enabled) throw refuse('provider is not enabled')
  if (!settings.client_id || !settings.secret) throw refuse('missing OAuth client ID or secret')
  return { name, provider, settings }
}

/** Redeems the code of a callback. */
export async function redeem(
  { provider, settings }: ReturnType<typeof enabledProvider>,
  endpoints: Endpoints,
  fields: Record<string, string>,
): Promise<ProviderTokens> {
  const id = settings.client_id.split(',')[0]!.trim()
  const client = { client_id: id, client_secret: settings.secret }
  const basic = btoa(`${encodeURIComponent(id)}:${encodeURIComponent(settings.secret)}`)
  const answer = await fetchJson<Partial<ProviderTokens> & { error?: string }>(endpoints.token, {
    method: 'POST',
    headers: provider.basic ? { authorization: `Basic ${basic}` } : {},
    body: new URLSearchParams({ grant_type: 'authorization_code', ...(provider.basic ? {} : client), ...fields }),
  })
  // GitHub reports errors with status 200.
  if (!answer.access_token) throw new Error(`no access token: ${answer.error ?? 'nothing said'}`)
  return { ...answer, access_token: answer.access_token }
}
