import { Hono } from 'hono'
import { html } from 'hono/html'
import { runChild } from '../child.ts'
import { inbox } from '../sandbox/inbox.ts'
import { modelServer } from '../sandbox/model.ts'
import { identityProviders } from '../sandbox/oidc.ts'
import { upstash } from '../sandbox/upstash.ts'

/** The outside world on loopback: a model provider, sign-in providers, an e-mail inbox, Redis. Reached under `<url>/sandbox`. */
await runChild((stack) => {
  const app = new Hono()
  app.route('/openai', modelServer())
  app.route('/oidc', identityProviders(stack))
  app.route('/inbox', inbox())
  app.route('/upstash', upstash())
  app.get('/', (c) =>
    c.html(html`<!doctype html><title>Sandbox</title><h1>Sandbox</h1><ul>
      <li><a href="${stack.url}/sandbox/inbox">E-mail inbox</a></li>
      <li><a href="${stack.url}/sandbox/openai/log">Requests to the model</a></li></ul>`),
  )
  app.notFound((c) => c.json({ code: 'not_found', message: `The sandbox has no ${c.req.path}.` }, 404))
  app.onError((error, c) => {
    console.error('sandbox:', error)
    return c.json({ code: 'internal_error', message: 'The sandbox failed; see its log.' }, 500)
  })

  const server = Deno.serve({ hostname: '127.0.0.1', port: stack.ports.sandbox, onListen() {} }, app.fetch)
  return Promise.resolve({
    // Streams may be stalled on purpose: there is nothing to wait for.
    async stop() {
      await Promise.race([server.shutdown(), new Promise((resolve) => setTimeout(resolve, 200))])
    },
  })
})
