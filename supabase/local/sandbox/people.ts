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
  /** Extra paths besides `/userinfo`, and what each answers, in the shape of the real one. */
  resources: Record<string, (person: Person) => unknown>
  /** Claims of the id token; absent where the real one issues none. */
  idToken?: (person: Person) => Record<string, unknown>
  /** How the token endpoint answers, where it is not plain JSON. */
  token?: (body: Record<string, unknown>, request: Request) => Response
  tokenError?: (error: string, description: string) => Response
  callbackExtra?: (person: Person) => Record<string, string>
  /** The error that a person who declines causes. */
  denied: string
  requiresPkce?: boolean
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

const xUser = (person: Person) => ({
  data: {
    id: person.id,
    name: person.name,
    username: person.login,
    profile_image_url: picture(person),
    // Only a confirmed address is ever shown.
    ...(person.email && person.verified ? { confirmed_email: person.email } : {}),
  },
})

export const providers: Record<ProviderName, Provider> = {
  google: { denied: 'access_denied', idToken: googleClaims, resources: { '/userinfo': googleClaims } },
  github: {
    denied: 'access_denied',
    resources: { '/api/v3/user': githubUser, '/api/v3/user/emails': githubEmails },
    // GitHub answers form-encoded unless asked for JSON, and its errors come with status 200.
    token: ({ access_token, scope }, request) => {
      const body = { access_token: String(access_token), scope: String(scope), token_type: 'bearer' }
      if (request.headers.get('accept')?.includes('json')) return Response.json(body)
      return new Response(new URLSearchParams(body), {
        headers: { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' },
      })
    },
    tokenError: (error, error_description) =>
      Response.json({
        error:
          { invalid_grant: 'bad_verification_code', invalid_client: 'incorrect_client_credentials' }[error] ?? error,
        error_description,
      }),
  },
  discord: { denied: 'access_denied', resources: { '/api/users/@me': discordUser } },
  apple: {
    denied: 'user_cancelled_authorize',
    idToken: appleClaims,
    resources: {},
    // The name comes once, beside the code, never in a token.
    callbackExtra: (person) => {
      const [firstName, ...rest] = person.name.split(' ')
      return { user: JSON.stringify({ name: { firstName, lastName: rest.join(' ') }, email: person.email }) }
    },
  },
  x: {
    denied: 'access_denied',
    requiresPkce: true,
    resources: { '/2/users/me': xUser },
  },
}
