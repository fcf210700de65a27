import { Hono } from 'hono'
import { html, raw } from 'hono/html'

interface Message {
  id: string
  at: string
  to: string
  subject: string
  html?: string
  text?: string
  [more: string]: unknown
}

const kept = 1000

/** Keeps every e-mail that the stack would have sent, newest first, the last thousand. */
export function inbox(): Hono {
  const app = new Hono()
  let messages: Message[] = []
  // Addresses differ in case between what was typed and what was stored.
  const sameAddress = (message: Message, to: string) => message.to.toLowerCase() === to.trim().toLowerCase()

  app.post('/', async (c) => {
    const body = await c.req.json().catch(() => null)
    if (typeof body?.to !== 'string' || typeof body?.subject !== 'string') {
      return c.json({ code: 'message_invalid', message: 'A message has `to` and `subject`.' }, 422)
    }
    const message: Message = { ...body, id: crypto.randomUUID(), at: new Date().toISOString() }
    messages = [message, ...messages.slice(0, kept - 1)]
    return c.json({ id: message.id }, 201)
  })

  app.get('/', (c) => {
    const to = c.req.query('to')
    const found = to ? messages.filter((message) => sameAddress(message, to)) : messages
    if (!c.req.header('accept')?.includes('text/html')) return c.json({ messages: found })
    return c.html(page(found))
  })

  app.delete('/', (c) => {
    const to = c.req.query('to')
    messages = to ? messages.filter((message) => !sameAddress(message, to)) : []
    return c.body(null, 204)
  })
  return app
}

/** The e-mails' own HTML is shown in frames without scripts or origin. */
function page(messages: Message[]) {
  const entry = (message: Message) => html`<details>
    <summary><time>${message.at}</time> <b>${message.to}</b> ${message.subject}</summary>
    ${message.html ? html`<iframe sandbox="allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation" srcdoc="${message.html}"></iframe>` : ''}
    <pre>${message.text ?? ''}</pre>
  </details>`
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Inbox</title><style>${raw(style)}</style></head>
    <body><h1>Inbox</h1>${messages.length ? messages.map(entry) : html`<p>No e-mail yet.</p>`}</body></html>`
}

const style = `body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
details{border-top:1px solid #8886;padding:.5rem 0}iframe{width:100%;height:20rem;border:1px solid #8886;background:#fff}pre{white-space:pre-wrap}time{opacity:.6}`
