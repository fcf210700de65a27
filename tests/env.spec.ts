import { readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

const example = readFileSync('.env.example', 'utf8')

/** Every variable that one of the five systems which Parlor replaces was configured with. */
const inherited = [
  ...[
    'PORT',
    'NODE_ENV',
    'HOST',
    'DATABASE_URL',
    'DATABASE_SSL',
    'REDIS_URL',
    'REDIS_HOST',
    'REDIS_PORT',
    'REDIS_PASSWORD',
  ],
  ...['JWT_SECRET', 'JWT_EXPIRES_IN', 'REFRESH_TOKEN_EXPIRES_IN', 'SENDGRID_API_KEY', 'RESEND_API_KEY'],
  ...[
    'AWS_ACCESS_KEY_ID',
    'AWS_SECRET_ACCESS_KEY',
    'AWS_REGION',
    'S3_BUCKET_NAME',
    'SENTRY_DSN',
    'LOG_LEVEL',
    'FRONTEND_URL',
  ],
  ...[
    'BETTER_AUTH_SECRET',
    'LIVEKIT_API_KEY',
    'LIVEKIT_API_SECRET',
    'LIVEKIT_URL',
    'DODO_API_KEY',
    'DODO_WEBHOOK_SECRET',
  ],
  ...['STRIPE_SECRET_KEY', 'SUPABASE_URL', 'SUPABASE_ANON_KEY', 'SUPABASE_SERVICE_ROLE_KEY', 'OPENAI_API_KEY'],
  ...[
    'ANTHROPIC_API_KEY',
    'OPENROUTER_API_KEY',
    'VASTAI_INSTANCE_IP',
    'VASTAI_INSTANCE_PORT',
    'VASTAI_OPEN_BUTTON_TOKEN',
  ],
]

/** A line that names the variable and either assigns it, after a sentence, or says what became of it. */
const explained = (name: string) =>
  new RegExp(`^# ${name}=`, 'm').test(example) ||
  new RegExp(`^# (\\w+, )*${name}(, \\w+)*\\s{2,}\\S`, 'm').test(example)

it.each(inherited)('S-26 .env.example says what became of %s', (name) => {
  expect(explained(name)).toBe(true)
})

it('S-26 every variable that the functions, the local defaults or config.toml read is explained in .env.example', () => {
  const sources = [
    'supabase/config.toml',
    ...readdirSync('functions/_shared', { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => `functions/_shared/${file}`),
  ].map((file) => readFileSync(file, 'utf8'))
  const read = sources.flatMap((text) => [
    ...text.matchAll(/env\((\w+)\)|(?:read|optional|required|get)\('([A-Z][A-Z0-9_]+)'/g),
  ])
  const local = [...readFileSync('supabase/local.env', 'utf8').matchAll(/^([A-Z][A-Z0-9_]+)=/gm)].map(
    ([, name]) => name!,
  )
  const names = new Set([...read.map(([, inConfig, inCode]) => inConfig ?? inCode!), ...local])

  expect([...names].filter((name) => !explained(name))).toEqual([])
})
