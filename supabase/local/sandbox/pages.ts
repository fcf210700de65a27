import { html } from 'hono/html'

/** The few pages that a person meets while signing in through the sandbox. Values are escaped by the template. */
const page = (title: string, body: ReturnType<typeof html>) => html`<!doctype html><html lang="en"><head>
  <meta charset="utf-8"><title>${title}</title></head>
  <body style="font:16px/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem">${body}</body></html>`

const hiddenFields = (fields: Record<string, string>) =>
  Object.entries(fields).map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`)

export const failure = (message: string) => page('Sign-in failed', html`<h1>Sign-in failed</h1><p>${message}</p>`)

/** Who do you want to be, or cancel. */
export const chooser = (provider: string, query: Record<string, string>) =>
  page(
    `Sandbox: sign in with ${provider}`,
    html`<h1>Sign in with ${provider}</h1><p>This is the sandbox: be whoever you like.</p>
    <form method="get">${hiddenFields(query)}
      <input name="as" type="email" aria-label="E-mail address" placeholder="you@example.com" required autofocus>
      <button>Continue</button> <button name="sandbox" value="denied" formnovalidate>Cancel</button></form>`,
  )

/** `response_mode=form_post`: the browser itself posts the answer. */
export const formPost = (target: string, fields: Record<string, string>) =>
  page(
    'Signing in',
    html`<form method="post" action="${target}">${hiddenFields(fields)}<noscript><button>Continue</button></noscript></form>
    <script>document.forms[0].submit()</script>`,
  )
