import { pause } from './deadline.ts'

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Record<string, string | number | boolean | null | undefined>

export interface Log {
  debug(event: string, fields?: Fields): void
  info(event: string, fields?: Fields): void
  warn(event: string, fields?: Fields, cause?: unknown): void
  error(event: string, fields?: Fields, cause?: unknown): void
  /** The same log with these fields on every line. */
  with(fields: Fields): Log
}

const order: Level[] = ['debug', 'info', 'warn', 'error']

/** Names of fields that could carry what a person wrote or what opens a door; their values are never written. */
const forbidden = /content|text|message|prompt|body|token|secret|password|authorization|apikey|api_key|cookie|e?mail/i

/** Shapes of secrets and personal data, wherever they stand: tokens, keys, URLs with a password, addresses. */
const secrets = [
  /eyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g,
  /\b(?:sb_(?:secret|publishable)|sk|pk|rk|gsk|whsec)[_-][\w-]{6,}/g,
  /\bBearer\s+\S+/gi,
  /[a-z][a-z+.-]*:\/\/[^\s/@]+:[^\s/@]+@/gi,
  /[\w.+-]+@[\w-]+\.[\w.-]+/g,
  /\bAIza[\w-]{20,}/g,
  /[?&](?:\w*key|\w*token|code|secret)=[^&\s)'"]+/gi,
]

/** Removes what must not be in a log from one value. */
export function redact(name: string, value: unknown): unknown {
  if (typeof value !== 'string') return value
  if (forbidden.test(name)) return '[redacted]'
  // Cut short afterwards: half a secret has no shape any more. Cut long before: shapes are searched for everywhere.
  let text = value.slice(0, 2000)
  for (const shape of secrets) text = text.replace(shape, '[redacted]')
  return text.length > 300 ? `${text.slice(0, 300)}…` : text
}

/**
 * What may be said about an error: its name, its code, and where it came from. Its message may quote what a person
 * wrote (databases and providers do), so it stays out, except for our own errors and those of the language.
 */
export function describeError(error: unknown, depth = 0): Record<string, unknown> | undefined {
  if (error === undefined || error === null) return undefined
  if (!(error instanceof Error)) {
    const { code, name } = error as { code?: unknown; name?: unknown }
    return {
      name: typeof name === 'string' ? word(name) : typeof error,
      ...(typeof code === 'string' && { code: word(code) }),
    }
  }
  const { code, status, constraint_name: constraint } = error as Error & Record<string, unknown>
  const quotable = /^(TypeError|ReferenceError|RangeError|SyntaxError|DeadlineError|Problem|MissingVariable)$/.test(
    error.name,
  )
  return {
    name: word(error.name),
    ...(typeof code === 'string' && { code: word(code) }),
    ...(typeof code === 'number' && { code }),
    ...(typeof status === 'number' && { status }),
    ...(typeof constraint === 'string' && { constraint }),
    ...(quotable && error.name !== 'SyntaxError' && { reason: redact('reason', error.message) }),
    at: frames(error)
      .slice(0, 6)
      .map((line) => line.trim().replace(/file:\/\/\S*?\/(functions|node_modules)\//, '$1/')),
    ...(depth < 2 && error.cause !== undefined && { cause: describeError(error.cause, depth + 1) }),
  }
}

/** Providers choose names and codes of errors too: what is no single word could be a sentence of somebody's. */
const word = (text: string): string => (/^[\w.:-]{1,80}$/.test(text) ? (redact('word', text) as string) : '[redacted]')

/** Lines of the stack. It begins with the message, in which a line may look like one of them. */
function frames({ stack = '', message }: Error): string[] {
  const at = message ? stack.indexOf(message) : -1
  const below = at < 0 ? stack : stack.slice(at + message.length)
  return below.split('\n').filter((line) => /^\s+at /.test(line))
}

export interface LogOptions {
  level: Level
  /** Gets every line of level `error`, already redacted. */
  report?: (line: Record<string, unknown>) => void
  write?: (line: string) => void
}

/** A log of JSON lines. Ids, codes, counts and durations go in; what people wrote, and secrets, never do. */
export function createLog({ level, report, write = console.log }: LogOptions, base: Fields = {}): Log {
  const emit = (at: Level, event: string, fields: Fields = {}, cause?: unknown) => {
    if (order.indexOf(at) < order.indexOf(level)) return
    const line: Record<string, unknown> = { time: new Date().toISOString(), level: at, event }
    for (const [name, value] of Object.entries({ ...base, ...fields })) {
      if (value !== undefined) line[name] = redact(name, value)
    }
    const error = describeError(cause)
    if (error) line.error = error
    write(JSON.stringify(line))
    if (at === 'error') report?.(line)
  }
  return {
    debug: (event, fields) => emit('debug', event, fields),
    info: (event, fields) => emit('info', event, fields),
    warn: (event, fields, cause) => emit('warn', event, fields, cause),
    error: (event, fields, cause) => emit('error', event, fields, cause),
    with: (fields) => createLog({ level, report, write }, { ...base, ...fields }),
  }
}

/**
 * Sends error lines to Sentry as plain envelopes; its SDK would bring a megabyte for this one POST. Never fails and
 * never holds up the caller; under a flood of errors it drops what exceeds five in flight.
 */
export function sentryReporter(dsn: string, release: string, keepAlive: (work: Promise<unknown>) => void) {
  const { protocol, host, pathname, username } = new URL(dsn)
  const project = pathname.split('/').pop()
  const url = `${protocol}//${host}${pathname.slice(0, -project!.length)}api/${project}/envelope/`
  let inFlight = 0

  return (line: Record<string, unknown>) => {
    if (inFlight >= 5) return
    inFlight += 1
    const id = crypto.randomUUID().replaceAll('-', '')
    const { time, event, error, ...tags } = line
    const cause = error as { name?: string; reason?: string; at?: string[] } | undefined
    const item = {
      event_id: id,
      timestamp: time,
      level: 'error',
      platform: 'javascript',
      release,
      transaction: event,
      tags,
      extra: { error },
      exception: { values: [{ type: cause?.name ?? 'Error', value: cause?.reason ?? event }] },
    }
    const body = [{ event_id: id, sent_at: time }, { type: 'event' }, item]
      .map((part) => JSON.stringify(part))
      .join('\n')
    const controller = new AbortController()
    const send = fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-sentry-envelope',
        'x-sentry-auth': `Sentry sentry_version=7, sentry_key=${username}, sentry_client=parlor/${release}`,
      },
      body,
      signal: controller.signal,
    })
      .then((response) => response.body?.cancel())
      .catch(() => {})
    const limit = pause(3000, controller.signal).then(() => controller.abort())
    keepAlive(
      Promise.race([send, limit]).finally(() => {
        controller.abort()
        inFlight -= 1
      }),
    )
  }
}
