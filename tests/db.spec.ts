import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { stack } from './support/local.ts'

/** Runs tests/db/<domain>/*.test.sql (pgTAP) in a database of their own; every file rolls back. */
const name = `pgtap_${process.pid}`
const folder = join(import.meta.dirname!, 'db')
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .map((file) => file.replaceAll('\\', '/'))
  .filter((file) => file.endsWith('.test.sql'))
  .sort()

const connect = (database: string, role: 'postgres' | 'supabase_admin') =>
  postgres({
    host: stack.database.host,
    port: stack.database.port,
    user: role,
    password: stack.database.passwords[role],
    database,
    max: 1,
    onnotice: () => {},
  })

beforeAll(async () => {
  const deno = join('node_modules', '.bin', 'deno')
  await promisify(execFile)(deno, ['run', '-A', 'supabase/local/prepare.ts', join(stack.data, 'stack.json'), name])
  const sql = connect(name, 'postgres')
  await sql.unsafe(readFileSync(join(folder, 'helpers.sql'), 'utf8'))
  await sql.end()
})

afterAll(async () => {
  const sql = connect(stack.database.name, 'supabase_admin')
  await sql.unsafe(`drop database if exists ${name} with (force)`)
  await sql.end()
})

/** The TAP lines of a file: every statement's single text column, line by line. */
async function run(file: string): Promise<string[]> {
  const sql = connect(name, 'postgres')
  try {
    const results = await sql.unsafe(readFileSync(join(folder, file), 'utf8')).simple()
    return results
      .flat()
      .flatMap((row: object) => Object.values(row))
      .filter((value: unknown) => typeof value === 'string')
      .flatMap((value: string) => value.split('\n'))
  } finally {
    await sql.end()
  }
}

describe('pgTAP', () => {
  it.each(files)('%s', async (file) => {
    const lines = await run(file)

    const planned = Number(lines.find((line) => /^1\.\.\d+$/.test(line))?.slice(3) ?? Number.NaN)
    const ran = lines.filter((line) => /^(not )?ok \d+/.test(line)).length
    const failed = lines.some((line) => line.startsWith('not ok')) || ran !== planned
    if (failed) throw new Error(`${file}: planned ${planned}, ran ${ran}\n${lines.join('\n')}`)
  })
})
