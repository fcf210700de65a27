import { exitCode, Failure } from './failure.ts'
import { databaseUrl, type Stack } from './stack.ts'

export type Variables = Record<string, string>

/**
 * Everything a function of this project sees, as hosted injects it: the project's `.env` (or the CLI's
 * `supabase/functions/.env`), then `supabase/local.env` where `.env` is silent, and the platform's own variables over all.
 */
export function functionEnvironment(stack: Stack): Variables {
  const own = readEnvironment(stack.project)
  const platform = platformVariables(stack)
  const defaults = localDefaults(stack.project, own, {
    SUPABASE_URL: stack.url,
    SANDBOX_URL: platform.SANDBOX_URL!,
    LOCAL_SECRET: stack.keys.localSecret,
  })
  // Hosted refuses secrets that begin so; SANDBOX_URL and the like may be overridden.
  const allowed = Object.entries(own).filter(([name]) => !name.startsWith('SUPABASE_') && name !== 'DATABASE_URL')
  return {
    SANDBOX_URL: platform.SANDBOX_URL!,
    ...defaults,
    ...Object.fromEntries(allowed),
    ...without(platform, 'SANDBOX_URL'),
  }
}

function without(variables: Variables, name: string): Variables {
  const { [name]: _, ...rest } = variables
  return rest
}

function platformVariables(stack: Stack): Variables {
  const { d: _, key_ops: __, ...publicKey } = stack.keys.signingKey
  return {
    SUPABASE_URL: stack.url,
    SUPABASE_DB_URL: databaseUrl(stack, 'postgres'),
    SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: stack.keys.publishable }),
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: stack.keys.secret }),
    SUPABASE_JWKS: JSON.stringify({ keys: [{ ...publicKey, key_ops: ['verify'] }] }),
    SUPABASE_ANON_KEY: stack.keys.publishable,
    SUPABASE_SERVICE_ROLE_KEY: stack.keys.secret,
    SANDBOX_URL: `${stack.url}/sandbox`,
    SB_REGION: 'local',
    SB_EXECUTION_ID: crypto.randomUUID(),
    DENO_DEPLOYMENT_ID: 'local',
    // 0 = nothing ends a function; without the variable the product takes hosted's limit for granted.
    WALL_CLOCK_SECONDS: String(stack.wallClockSeconds ?? 0),
  }
}

/** DATABASE_URL of the shell or of `.env`; it is the stack's alone, functions never see a superuser's password. */
export function databaseUrlOf(project: string): string | null {
  return Deno.env.get('DATABASE_URL') || readEnvironment(project).DATABASE_URL || null
}

/** The project's own variables: `supabase/functions/.env`, over it `.env`. */
export function readEnvironment(project: string): Variables {
  return {
    ...parseFile(`${project}/supabase/functions/.env`),
    ...parseFile(`${project}/.env`),
  }
}

function parseFile(file: string): Variables {
  const text = readOptional(file)
  return text === null ? {} : Object.fromEntries(parseEnvironment(text, file).map(({ name, value }) => [name, value]))
}

function readOptional(file: string): string | null {
  try {
    return Deno.readTextFileSync(file)
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null
    throw new Failure(`${file} cannot be read: ${(error as Error).message}`, exitCode.usage)
  }
}

/** The paragraphs of `supabase/local.env` of which the project sets no line itself. */
function localDefaults(project: string, own: Variables, placeholders: Variables): Variables {
  const file = `${project}/supabase/local.env`
  const text = readOptional(file)
  if (text === null) return {}
  const lines = parseEnvironment(text, file)
  const decided = new Set(lines.filter(({ name }) => own[name]).map(({ paragraph }) => paragraph))
  const kept = lines.filter(({ paragraph }) => !decided.has(paragraph))
  return Object.fromEntries(
    kept.map(({ name, value }) => [name, value.replace(/\$\{(\w+)\}/g, (whole, key) => placeholders[key] ?? whole)]),
  )
}

interface Line {
  name: string
  value: string
  paragraph: number
}

/**
 * Parses the dotenv format: `NAME=value`, optional `export`, `#` comments, 'literal' and "escaped" values that may span
 * lines. Anything else is refused with its line: a variable that is silently dropped costs an afternoon.
 */
export function parseEnvironment(text: string, file: string): Line[] {
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/)
  const parsed: Line[] = []
  let paragraph = 0
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!
    const refuse = (why: string) => new Failure(`${file}, line ${at + 1}: ${why}`, exitCode.usage)
    if (line.trim() === '') paragraph++
    if (line.trim() === '' || line.trim().startsWith('#')) continue
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/.exec(line)
    if (!match) throw refuse(line.includes('=') ? 'not a name of a variable before "="' : 'expected NAME=value')
    const [, name, raw] = match as unknown as [string, string, string]
    const quote = raw[0] === '"' || raw[0] === "'" ? raw[0] : null
    if (quote === null) {
      parsed.push({ name, value: raw.replace(/(^|\s+)#.*$/, '').trim(), paragraph })
      continue
    }
    const from = at
    let body = raw.slice(1)
    const closing = quote === '"' ? /^((?:[^"\\]|\\[\s\S])*)"(.*)$/s : /^([^']*)'(.*)$/s
    while (!closing.test(body) && at + 1 < lines.length) body += `\n${lines[++at]}`
    const closed = closing.exec(body)
    if (!closed) throw new Failure(`${file}, line ${from + 1}: the quote of ${name} is never closed`, exitCode.usage)
    if (!/^\s*(#.*)?$/.test(closed[2]!)) throw refuse(`unexpected text after the quoted value of ${name}`)
    const value =
      quote === "'"
        ? closed[1]!
        : closed[1]!.replace(/\\([nrt"\\$])/g, (_, c) => ({ n: '\n', r: '\r', t: '\t' })[c as string] ?? c)
    parsed.push({ name, value, paragraph })
  }
  return parsed
}
