import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { expect, it } from 'vitest'
import { publishableKey, stack, url } from './support/local.ts'

const smoke = (...args: string[]) => spawnSync('node', ['scripts/smoke.mjs', ...args], { encoding: 'utf8' })

it('S-28 the smoke test passes against a running instance', () => {
  const run = smoke(url, publishableKey)

  expect(run.stdout).toContain('all checks passed')
  expect(run.status).toBe(0)
})

it('S-28 the smoke test fails where the key is wrong, and names the check', () => {
  const run = smoke(url, 'sb_publishable_wrong')

  expect(run.stdout).toContain('FAILED the Data API takes the publishable key')
  expect(run.status).toBe(1)
})

it('S-28 the smoke test fails where nothing answers', () => {
  const run = smoke('http://127.0.0.1:9', publishableKey)

  expect(run.status).toBe(1)
})

it('S-28 the smoke test asks for the key that belongs to an address', () => {
  const run = smoke(url)

  expect(run.stderr).toContain('usage')
  expect(run.status).toBe(2)
})

it('S-28 the migration status names every migration as applied', () => {
  const { host, port, name, passwords } = stack.database
  const remote = `postgresql://postgres:${passwords.postgres}@${host}:${port}/${name}`
  const versions = readdirSync('supabase/migrations').map((file) => file.split('_')[0]!)

  const run = spawnSync('npx', ['--no', 'supabase', '--', 'migration', 'list', `--remote=${remote}`], {
    encoding: 'utf8',
  })

  for (const version of versions) expect(run.stdout).toMatch(new RegExp(`${version}\\D+${version}`))
})
