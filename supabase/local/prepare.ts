import { bootstrap, setDefaultPrivileges } from './bootstrap/bootstrap.ts'
import { readProject } from './config.ts'
import { functionEnvironment } from './env.ts'
import { migrate, upsertVault } from './migrations.ts'
import { withConnection } from './sql.ts'
import { readStack } from './stack.ts'

/**
 * `prepare.ts <stack.json> <database> [--no-auto-expose]`: makes one more database with bootstrap and migrations, without
 * seed and served by nobody, for tests that want a database of their own.
 */
const [stackFile, name, state] = Deno.args
if (!stackFile || !name || !/^[a-z][a-z0-9_]{0,62}$/.test(name)) {
  console.error('prepare.ts <stack.json> <database name> [--no-auto-expose]')
  Deno.exit(2)
}
const stack = readStack(stackFile)
const project = readProject(stack.project, functionEnvironment(stack))
await withConnection(stack, 'supabase_admin', async (sql) => {
  await sql.unsafe(`drop database if exists ${name} with (force)`)
  await sql.unsafe(`create database ${name} template template0 strategy file_copy`)
})
const own = { ...stack, database: { ...stack.database, name } }
await bootstrap(own)
await setDefaultPrivileges(own, state === '--no-auto-expose' ? false : project.api.auto_expose_new_tables)
await upsertVault(own, project)
await migrate(own, project, console.log)
Deno.exit(0)
