import { hash } from './answer.ts'

export type ProviderName = 'google' | 'github' | 'discord' | 'apple' | 'x'

/** Somebody at a provider. The same address at the same provider is always the same person. */
export interface Person {
  id: string
  email: string | null
  verified: boolean
  name: string
  login: string
}

interface Provider {
  /** Paths below the provider's url, the real one's where it is fixed. */
  authorize: string
  token: string
  /** What tells who signed in, in the real one's shape. */
  resources: Record<string, (person: Person, query: Record<string, string>) => object>
  /** Claims of the id token; absent where the real one issues none. */
  idToken?: (person: Person) => Record<string, unknown>
  /** How the token endpoint answers, where it is not plain JSON with proper statuses. */
  tokenAnswer?: (body: Record<string, unknown>, request: Request) => Response
  tokenError?: (error: string, description: string) => Response
  callbackExtra?: (person: Person) => Record<string, string>
  /** The error that a person who declines causes. */
  denied: string
  requiresPkce?: boolean
  /** Scopes for which the answer must be posted. */
  formPostScopes?: RegExp
}

export function personOf(
  provider: string,
  address: string,
  options: { name?: string; unverified: boolean; noEmail: boolean },
): Person {
  const email = address.trim()
  const login =
    email
      .split('@')[0]!
      .replace(/[^a-z0-9_]/gi, '')
      .slice(0, 15) || 'someone'
  // Numbers, since GitHub's ids are; 53 bits at most.
  const id = String(hash(`${provider}:${email.toLowerCase()}`) * 1000 + (hash(email.toLowerCase()) % 1000))
  return {
    id,
    email: options.noEmail ? null : email,
    verified: !options.unverified,
    name: options.name ?? login.charAt(0).toUpperCase() + login.slice(1),
    login,
  }
}

const picture = (person: Person) => `https://avatars.example.com/${person.id}.png`

const googleClaims = (person: Person) => ({
  sub: person.id,
  name: person.name,
  given_name: person.name.split(' ')[0],
  family_name: person.name.split(' ').slice(1).join(' '),
  picture: picture(person),
  ...(person.email ? { email: person.email, email_verified: person.verified } : {}),
})

const appleClaims = (person: Person) => ({
  sub: `000${person.id}.sandbox`,
  ...(person.email ? { email: person.email, email_verified: String(person.verified) } : {}),
  is_private_email: 'false',
  auth_time: Math.floor(Date.now() / 1000),
})

const githubUser = (person: Person) => ({
  login: person.login,
  id: Number(person.id),
  avatar_url: picture(person),
  html_url: `https://github.com/${person.login}`,
  type: 'User',
  name: person.name,
  // Most people keep their address private: it is in /user/emails only.
  email: null,
})

const githubEmails = (person: Person) => [
  ...(person.email ? [{ email: person.email, primary: true, verified: person.verified, visibility: 'private' }] : []),
  {
    email: `${person.id}+${person.login}@users.noreply.github.com`,
    primary: !person.email,
    verified: true,
    visibility: null,
  },
]

const discordUser = (person: Person) => ({
  id: person.id,
  username: person.login.toLowerCase(),
  discriminator: '0',
  global_name: person.name,
  avatar: null,
  email: person.email,
  verified: person.email ? person.verified : false,
  locale: 'en-GB',
})

const xUser = (person: Person, query: Record<string, string>) => {
  const asked = (query['user.fields'] ?? '').split(',')
  return {
    data: {
      id: person.id,
      name: person.name,
      username: person.login,
      ...(asked.includes('profile_image_url') ? { profile_image_url: picture(person) } : {}),
      // Only when asked for, and only a confirmed address.
      ...(asked.includes('confirmed_email') && person.email && person.verified
        ? { confirmed_email: person.email }
        : {}),
    },
  }
}

/** GitHub's own names for the errors of OAuth, which it sends with status 200. */
const githubErrors: Record<string, string> = {
  invalid_grant: 'bad_verification_code',
  invalid_client: 'incorrect_client_credentials',
}

export const providers: Record<ProviderName, Provider> = {
  google: {
    authorize: '/authorize',
    token: '/token',
    denied: 'access_denied',
    idToken: googleClaims,
    resources: { '/userinfo': googleClaims },
  },
  github: {
    authorize: '/login/oauth/authorize',
    token: '/login/oauth/access_token',
    denied: 'access_denied',
    resources: { '/api/v3/user': githubUser, '/api/v3/user/emails': githubEmails },
    // Form-encoded unless asked for JSON.
    tokenAnswer: ({ access_token, scope }, request) => {
      const body = { access_token: String(access_token), scope: String(scope), token_type: 'bearer' }
      if (request.headers.get('accept')?.includes('json')) return Response.json(body)
      return new Response(new URLSearchParams(body))
    },
    tokenError: (error, error_description) => Response.json({ error: githubErrors[error] ?? error, error_description }),
  },
  discord: {
    authorize: '/api/oauth2/authorize',
    token: '/api/oauth2/token',
    denied: 'access_denied',
    resources: { '/api/users/@me': discordUser },
  },
  apple: {
    authorize: '/authorize',
    token: '/token',
    denied: 'user_cancelled_authorize',
    formPostScopes: /\b(name|email)\b/,
    idToken: appleClaims,
    resources: {},
    // The name comes once, beside the code, never in a token.
    callbackExtra: (person) => {
      const [firstName, ...rest] = person.name.split(' ')
      return { user: JSON.stringify({ name: { firstName, lastName: rest.join(' ') }, email: person.email }) }
    },
  },
  x: {
    authorize: '/i/oauth2/authorize',
    token: '/2/oauth2/token',
    denied: 'access_denied',
    requiresPkce: true,
    resources: { '/2/users/me': xUser },
  },
}
