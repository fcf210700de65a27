import type { Files } from './files.ts'
import { PLATFORM, type Run } from './server.ts'

/** Longer than between the bytes of an upload and its row, so that none under way is taken for an orphan. */
const AGE_MS = 60 * 60 * 1000

/**
 * Removes files that no row shows: of uploads, replacements and deletions that were cut off between file and row.
 * A data folder may have served several databases (`DATABASE_URL`); what then looks like an orphan may be a file of
 * another one, so nothing is removed there any more.
 */
export async function collectOrphans(folder: string, files: Files, run: Run): Promise<void> {
  const old = await files.olderThan(Date.now() - AGE_MS)
  const { owner, shown } = await run(PLATFORM, 'object.collect', async (db) => {
    const [database] = await db.query(
      `select system_identifier || ':' || (select oid from pg_database where datname = current_database()) as id
       from pg_control_system()`,
    )
    const rows = await db.query('select version from storage.objects where version = any($1)', [old])
    return { owner: String(database!.id), shown: new Set(rows.map(({ version }) => version)) }
  })
  const marker = `${folder}/.database`
  const known = await Deno.readTextFile(marker).catch(() => null)
  // Files without a marker were kept before there was one.
  const now = known === owner || (known === null && old.length === 0) ? owner : 'several'
  if (now !== known) await Deno.writeTextFile(marker, now, { mode: 0o600 })
  if (now === owner) await files.remove(old.filter((version) => !shown.has(version)))
}
