import { bootstrap, setDefaultPrivileges } from './bootstrap/bootstrap.ts'
import { readProject } from './config.ts'
import { functionEnvironment } from './env.ts'
import { Failure } from './failure.ts'
import { migrate, upsertVault } from './migrations.ts'
import { withConnection } from './sql.ts'
import { databaseUrl, readStack } from './stack.ts'

/**
 * `prepare.ts <stack.json> <database> [--bootstrap-only] [--auto-expose | --no-auto-expose]`: makes one more database, anew, with
 * bootstrap and migrations, without seed and served by nobody, for tests that want one of their own. Prints its URL.
 */
async function prepare([stackFile, name, ...flags]: string[]): Promise<void> {
  if (!stackFile || !/^[a-z][a-z0-9_]{0,62}$/.test(name ?? '')) {
    throw new Failure(
      'prepare.ts <stack.json> <database name> [--bootstrap-only] [--auto-expose | --no-auto-expose]',
      2,
    )
  }
  const running = readStack(stackFile)
  const project = readProject(running.project, functionEnvironment(running))
  const stack = { ...running, database: { ...running.database, name: name! } }
  await withConnection(running, 'supabase_admin', async (sql) => {
    // Roles belong to the server: two bootstraps at once would stumble over each other's changes.
    await sql`select pg_advisory_lock(54321002)`
    await sql.unsafe(`drop database if exists ${name} with (force)`)
    await sql.unsafe(`create database ${name} template template0 strategy file_copy`)
    await bootstrap(stack)
  })
  const configured = project.api.auto_expose_new_tables && !flags.includes('--no-auto-expose')
  await setDefaultPrivileges(stack, configured || flags.includes('--auto-expose'))
  if (!flags.includes('--bootstrap-only')) {
    await upsertVault(stack, project)
    await migrate(stack, project, console.error)
  }
  console.log(databaseUrl(stack, 'postgres'))
}

try {
  await prepare(Deno.args)
  Deno.exit(0)
} catch (error) {
  if (!(error instanceof Failure)) throw error
  console.error(error.message)
  Deno.exit(error.code)
}
