import type { Project } from '../config.ts'
import { functionEnvironment } from '../env.ts'
import type { Tokens } from '../gateway/tokens.ts'
import type { Stack } from '../stack.ts'
import * as account from './account.ts'
import * as admin from './admin.ts'
import { type Auth, connect, createCall, type Handler } from './context.ts'
import { AuthError, errorResponse } from './errors.ts'
import { findFaults } from './hooks.ts'
import { generateLink, invite } from './links.ts'
import * as oauth from './oauth.ts'
import { createPasswords } from './passwords.ts'
import { readSettings } from './settings.ts'
import { signInByEmail, signUp, token } from './sign_in.ts'
import { followLink, recover, resend, verify } from './verify.ts'

interface Options {
  stack: Stack
  project: Pick<Project, 'auth'>
  tokens: Tokens
}

interface Route {
  method: string
  path: URLPattern
  handler: Handler
  /** A browser follows this address by itself and cannot send a key. */
  open: boolean
}

const PREFIX = '/auth/v1'

/**
 * Serves `/auth/v1`: what supabase-js and the admin API use of Supabase Auth, in its shapes, on the tables hosted has.
 * Phone, SAML, MFA and passkeys are answered with the code hosted gives when they are switched off.
 */
export async function startAuth({ stack, project, tokens }: Options) {
  const settings = readSettings(project, stack.url, functionEnvironment(stack))
  const sql = connect(stack)
  const passwords = createPasswords(stack)
  const auth: Auth = { stack, settings, tokens, sql, passwords }
  const routes = createRoutes()
  for (const sentence of await findFaults(auth)) console.error(`auth: ${sentence}`)

  return {
    async fetch(request: Request): Promise<Response> {
      try {
        return await dispatch(auth, routes, request)
      } catch (error) {
        return errorResponse(error, request)
      }
    },
    async stop() {
      await Promise.all([sql.end({ timeout: 5 }), passwords.close()])
    },
  }
}

async function dispatch(auth: Auth, routes: Route[], request: Request): Promise<Response> {
  const url = new URL(request.url)
  const path = url.pathname.slice(PREFIX.length) || '/'
  const matching = routes.filter((route) => route.path.test({ pathname: path }))
  if (!matching.length) throw new AuthError(404, 'not_found', `No such route: ${path}`)
  const route = matching.find(({ method }) => method === request.method)
  if (!route) throw new AuthError(405, 'method_not_allowed', `${request.method} is not allowed here`)
  const apikey = request.headers.get('apikey') ?? url.searchParams.get('apikey')
  if (!route.open && !auth.tokens.keyClaims(apikey)) {
    throw new AuthError(401, 'no_authorization', apikey ? 'Invalid API key' : 'No API key found in request')
  }
  const params = route.path.exec({ pathname: path })!.pathname.groups as Record<string, string>
  return route.handler(auth, createCall(request, url, params))
}

function createRoutes(): Route[] {
  const route = (method: string, pathname: string, handler: Handler, open = false): Route => ({
    method,
    path: new URLPattern({ pathname }),
    handler,
    open,
  })
  const refuse =
    (status: number, code: string, message: string): Handler =>
    () => {
      throw new AuthError(status, code, message)
    }
  const noMfa = refuse(422, 'mfa_totp_enroll_not_enabled', 'MFA enroll is disabled for TOTP')
  const noSaml = refuse(404, 'saml_provider_disabled', 'SAML 2.0 is disabled')
  const { forAdmins } = admin
  return [
    route(
      'GET',
      '/health',
      () =>
        Promise.resolve(
          Response.json({ version: 'local', name: 'GoTrue', description: 'Local stand-in for Supabase Auth' }),
        ),
      true,
    ),
    route('GET', '/.well-known/jwks.json', jwks, true),
    route('GET', '/settings', publicSettings),
    route('POST', '/signup', signUp),
    route('POST', '/token', token),
    route('POST', '/otp', signInByEmail),
    route('POST', '/magiclink', signInByEmail),
    route('POST', '/verify', verify),
    route('GET', '/verify', followLink, true),
    route('POST', '/recover', recover),
    route('POST', '/resend', resend),
    route('GET', '/user', account.getUser),
    route('PUT', '/user', account.updateUser),
    route('GET', '/reauthenticate', account.reauthenticate),
    route('POST', '/logout', account.signOut),
    route('GET', '/user/identities/authorize', oauth.linkIdentity),
    route('DELETE', '/user/identities/:id', account.unlinkIdentity),
    route('GET', '/authorize', oauth.authorize, true),
    route('GET', '/callback', oauth.callback, true),
    route('POST', '/callback', oauth.callback, true),
    route('POST', '/invite', forAdmins(invite)),
    route('POST', '/admin/generate_link', forAdmins(generateLink)),
    route('GET', '/admin/users', forAdmins(admin.listUsers)),
    route('POST', '/admin/users', forAdmins(admin.createUser)),
    route('GET', '/admin/users/:id', forAdmins(admin.getUserById)),
    route('PUT', '/admin/users/:id', forAdmins(admin.updateUserById)),
    route('DELETE', '/admin/users/:id', forAdmins(admin.deleteUser)),
    route(
      'GET',
      '/admin/users/:id/factors',
      forAdmins(() => Promise.resolve(Response.json([]))),
    ),
    route('POST', '/factors', noMfa),
    route('POST', '/factors/:id/challenge', noMfa),
    route('POST', '/factors/:id/verify', noMfa),
    route('DELETE', '/factors/:id', noMfa),
    route('POST', '/sso', noSaml),
    route('GET', '/sso/saml/metadata', noSaml, true),
  ]
}

const jwks: Handler = ({ tokens }) =>
  Promise.resolve(Response.json(tokens.jwks, { headers: { 'cache-control': 'public, max-age=600' } }))

const publicSettings: Handler = ({ settings }) =>
  Promise.resolve(
    Response.json({
      external: {
        anonymous_users: settings.enable_anonymous_sign_ins,
        email: settings.email.enable_signup,
        phone: false,
        ...Object.fromEntries(Object.entries(settings.external).map(([name, { enabled }]) => [name, enabled])),
      },
      disable_signup: !settings.enable_signup,
      mailer_autoconfirm: !settings.email.enable_confirmations,
      phone_autoconfirm: false,
      sms_provider: '',
      saml_enabled: false,
    }),
  )
