import type { SupabaseClient } from '@supabase/supabase-js'
import { until } from './local.ts'

/** An e-mail in the sandbox's inbox. */
export interface Mail {
  to: string
  subject: string
  kind: string
  otp: string
  token_hash: string
  text: string
  html: string
}

/** The newest e-mail to an address, of a kind when one is named; waits until it is there. */
export const mailTo = (origin: string, address: string, kind?: string): Promise<Mail> =>
  until(async () => {
    const answer = await fetch(`${origin}/sandbox/inbox?to=${encodeURIComponent(address)}`)
    const { messages } = (await answer.json()) as { messages: Mail[] }
    return messages.find((mail) => !kind || mail.kind === kind)
  })

/** The link in an e-mail. */
export const linkIn = (mail: Mail): string => /https?:\/\/\S+/.exec(mail.text)![0]

export const ways = ['google', 'github', 'discord', 'apple', 'x'] as const
export type Way = (typeof ways)[number]

/** Where a browser arrives that goes where it is sent and submits the form that Apple answers with, until it leaves `origin`. */
export async function browse(origin: string, start: string): Promise<URL> {
  let request = new Request(start, { redirect: 'manual' })
  for (let hop = 0; hop < 10; hop++) {
    const answer = await fetch(request)
    const location = answer.headers.get('location')
    if (location) {
      const next = new URL(location, request.url)
      if (next.origin !== origin) return next
      request = new Request(next, { redirect: 'manual' })
      continue
    }
    const page = await answer.text()
    const action = /<form method="post" action="([^"]+)"/.exec(page)?.[1]
    if (!action) throw new Error(`${request.url} answered ${answer.status} and leads nowhere: ${page.slice(0, 300)}`)
    const fields = [...page.matchAll(/type="hidden" name="([^"]+)" value="([^"]*)"/g)]
    const body = new URLSearchParams(fields.map(([, name, value]) => [name!, unescapeHtml(value!)]))
    request = new Request(unescapeHtml(action), { method: 'POST', body, redirect: 'manual' })
  }
  throw new Error(`${start} leads in circles`)
}

const unescapeHtml = (text: string) =>
  text
    .replace(/&quot;/g, '"')
    .replace(/&#39;/g, "'")
    .replace(/&lt;/g, '<')
    .replace(/&gt;/g, '>')
    .replace(/&amp;/g, '&')

/** Goes the whole way through a provider as the person with this address, and returns where the browser ends. */
export async function signInThrough(
  client: SupabaseClient,
  origin: string,
  provider: Way,
  email: string,
  queryParams: Record<string, string> = {},
  redirectTo = 'http://localhost:3000/welcome',
): Promise<URL> {
  const { data, error } = await client.auth.signInWithOAuth({
    provider: provider as never,
    options: { redirectTo, skipBrowserRedirect: true, queryParams: { login_hint: email, ...queryParams } },
  })
  if (error) throw error
  return browse(origin, data.url!)
}

/** Members of an address's fragment. */
export const fragment = (url: URL): Record<string, string> => Object.fromEntries(new URLSearchParams(url.hash.slice(1)))
