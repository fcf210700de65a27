import { doesNotThrow, throws } from 'node:assert/strict'
import { checkApp, checkConnection } from '../../supabase/local/gateway/lite.ts'

const method = () => {}
const connection = () => ({
  rlsState: 'unknown',
  introspect: method,
  clearSchemaCache: method,
  normalizeDbError: method,
  withContext: method,
  close: method,
})

Deno.test('a lite with everything that the hardening takes hold of passes', () => {
  doesNotThrow(() => checkConnection(connection()))
  doesNotThrow(() => checkApp({ server: { fetch: method } }))
})

for (const member of ['introspect', 'clearSchemaCache', 'normalizeDbError', 'withContext', 'close']) {
  Deno.test(`a lite whose connection lacks ${member} stops the start, and is told by that name`, () => {
    for (const instead of [undefined, null, 'text']) {
      throws(() => checkConnection({ ...connection(), [member]: instead }), new RegExp(`no connection\\.${member}:`))
    }
  })
}

Deno.test('a lite that grants rights otherwise than known, or has done so already, stops the start', () => {
  for (const rlsState of [undefined, 'active', 'inactive', true]) {
    throws(() => checkConnection({ ...connection(), rlsState }), /no connection\.rlsState:/)
  }
})

Deno.test('a lite whose server cannot be called without its listener stops the start', () => {
  for (const app of [{}, { server: null }, { server: {} }, { server: { fetch: 'text' } }]) {
    throws(() => checkApp(app), /no app\.server\.fetch:/)
  }
})
