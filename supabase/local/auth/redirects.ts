import { type AuthError, oauthError } from './errors.ts'
import type { Settings } from './settings.ts'

/**
 * Where a browser may be sent with tokens: the site itself, loopback addresses, and what `additional_redirect_urls`
 * names. The rules, and their order, are those of supabase/auth (utilities/request.go).
 */
export function isAllowedRedirect(settings: Settings, target: string): boolean {
  const site = parse(settings.site_url)
  const url = parse(target)
  if (!site || !url) return false

  const sameHost = site.hostname === url.hostname && site.protocol === url.protocol
  if (sameHost && (site.port === url.port || isLoopback(url.hostname))) return true

  // `new URL` has already turned decimal and hexadecimal forms of an address into dotted ones: look at what was written.
  const written = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)/i.exec(target)?.[1] ?? ''
  if (/^\d+$/.test(written)) return false
  if (/^\d+\.\d+\.\d+\.\d+$/.test(url.hostname) || url.hostname.startsWith('[')) return isLoopback(url.hostname)
  const isHttp = url.protocol === 'http:' || url.protocol === 'https:'
  if (isHttp && !/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(written)) return false

  const withoutFragment = target.split('#')[0]!
  return settings.additional_redirect_urls.some((pattern) => glob(pattern).test(withoutFragment))
}

/** The target a request asks for, when it is allowed; else the page it came from; else the site. */
export function redirectTarget(settings: Settings, request: Request, fromBody?: string): string {
  const asked = fromBody || request.headers.get('redirect_to') || new URL(request.url).searchParams.get('redirect_to')
  if (asked && isAllowedRedirect(settings, asked)) return asked
  const referrer = request.headers.get('referer')
  return referrer && isAllowedRedirect(settings, referrer) ? referrer : settings.site_url
}

/** `http://host/path?…` with the given members in the query, the fragment, or both. */
export function withParameters(
  target: string,
  query: Record<string, string>,
  fragment?: Record<string, string>,
): string {
  const url = new URL(target)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  // `sb` tells clients that the fragment comes from Supabase Auth.
  if (fragment) url.hash = new URLSearchParams({ ...fragment, sb: '' }).toString()
  return url.toString()
}

export function errorRedirect(target: string, error: AuthError, inQuery: boolean): string {
  const members = { error: oauthError(error), error_code: error.code, error_description: error.message }
  return withParameters(target, inQuery ? members : {}, members)
}

export const redirect = (location: string, status = 303) =>
  new Response(null, { status, headers: { location, 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' } })

const isLoopback = (host: string) => host === 'localhost' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host)

function parse(text: string): URL | null {
  try {
    return new URL(text)
  } catch {
    return null
  }
}

/** `*` stands for anything but a dot or slash, `**` for anything, `?` for one character that is neither. */
function glob(pattern: string): RegExp {
  const source = pattern.replace(/\*\*|\*|\?|[.+^${}()|[\]\\/]/g, (part) => {
    if (part === '**') return '.*'
    if (part === '*') return '[^./]*'
    if (part === '?') return '[^./]'
    return `\\${part}`
  })
  return new RegExp(`^${source}$`)
}
