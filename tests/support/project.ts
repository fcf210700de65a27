import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient, type SupabaseClient } from '@supabase/supabase-js'
import { importJWK, SignJWT } from 'jose'
import postgres from 'postgres'
import { afterAll, beforeAll } from 'vitest'
import WebSocket from 'ws'
import type { LoginRole, Stack } from '../../supabase/local/stack.ts'

/** A stack that serves another project than Parlor, for one spec file. Everything is made by `beforeAll`. */
export interface ProjectStack {
  stack: Stack
  url: string
  client(token?: string): SupabaseClient
  admin(): SupabaseClient
  sql(role?: LoginRole): postgres.Sql
  /** A user's token as Auth signs it; claims and header can be bent. */
  token(claims?: Record<string, unknown>, options?: { header?: Record<string, unknown> }): Promise<string>
}

export function projectStack(project: string): ProjectStack {
  const data = process.env.PROJECT_STACK_DATA ?? join(tmpdir(), `parlor-project-${randomUUID()}`)
  let child: ChildProcess | undefined
  let stack: Stack
  const connections: postgres.Sql[] = []
  beforeAll(async () => {
    if (!process.env.PROJECT_STACK_DATA) child = await start(project, data)
    stack = JSON.parse(readFileSync(join(data, 'stack.json'), 'utf8'))
  })
  afterAll(async () => {
    await Promise.all(connections.map((sql) => sql.end({ timeout: 1 })))
    if (!child) return
    const ended = new Promise((resolve) => child!.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
    rmSync(data, { recursive: true, force: true })
  })
  const make = (key: string, token?: string) =>
    createClient(stack.url, key, {
      auth: { persistSession: false, autoRefreshToken: false },
      global: token ? { headers: { authorization: `Bearer ${token}` } } : {},
      realtime: { transport: WebSocket as never },
    })
  return {
    get stack() {
      return stack
    },
    get url() {
      return stack.url
    },
    client: (token) => make(stack.keys.publishable, token),
    admin: () => make(stack.keys.secret),
    sql(role = 'postgres') {
      const { host, port, name, passwords } = stack.database
      const sql = postgres({ host, port, database: name, user: role, password: passwords[role], onnotice: () => {} })
      connections.push(sql)
      return sql
    },
    async token(claims = {}, { header = {} } = {}) {
      const key = await importJWK(stack.keys.signingKey, 'ES256')
      const now = Math.floor(Date.now() / 1000)
      return new SignJWT({
        sub: randomUUID(),
        role: 'authenticated',
        aud: 'authenticated',
        iat: now,
        exp: now + 3600,
        ...claims,
      })
        .setProtectedHeader({ alg: 'ES256', kid: stack.keys.signingKey.kid, typ: 'JWT', ...header })
        .sign(key)
    },
  }
}

function start(project: string, data: string): Promise<ChildProcess> {
  const { DATABASE_URL: _, ...env } = process.env
  const child = spawn(
    process.execPath,
    ['supabase/local/start.mjs', '--port', '0', '--data', data, '--project', project, '--quiet'],
    { env, stdio: ['ignore', 'pipe', 'pipe'] },
  )
  return new Promise((resolve, reject) => {
    let said = ''
    child.stderr!.on('data', (chunk) => {
      said += chunk
    })
    child.stdout!.on('data', (chunk) => {
      said += chunk
      if (said.includes('ready http')) resolve(child)
    })
    child.once('exit', (code) => reject(new Error(`The stack of ${project} ended with code ${code}.\n${said}`)))
  })
}
