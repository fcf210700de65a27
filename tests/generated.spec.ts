import { spawnSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { stack } from './support/local.ts'

it('the committed database types are what the database says', () => {
  const { host, port, name, passwords } = stack.database
  const url = `postgresql://postgres:${passwords.postgres}@${host}:${port}/${name}`

  const run = spawnSync('node', ['scripts/types.mjs', '--check', url], { encoding: 'utf8' })

  expect(run.stderr).toBe('')
  expect(run.status).toBe(0)
})
