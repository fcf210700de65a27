import { dirname } from 'node:path'
import { readProject } from '../config.ts'
import type { Source } from './load.ts'

export interface FunctionSource extends Source {
  verifyJwt: boolean
}

/** The functions of a project that are enabled. */
export function findFunctions(project: string, environment: Record<string, string>): FunctionSource[] {
  return Object.values(readProject(project, environment).functions)
    .filter((settings) => settings.enabled)
    .map(({ slug, entrypoint, verify_jwt }) => ({ slug, entrypoint, verifyJwt: verify_jwt }))
}

/** Where changes matter: the folders that hold the functions' folders, `types/` beside them, and a few single files. */
export function watchedPaths(project: string, functions: FunctionSource[]): { folders: string[]; files: string[] } {
  const folders = new Set([`${project}/functions`, `${project}/supabase/functions`, `${project}/types`])
  for (const { entrypoint } of functions) {
    if (![...folders].some((folder) => entrypoint.startsWith(`${folder}/`))) folders.add(dirname(entrypoint))
  }
  const files = ['deno.json', '.env', 'supabase/config.toml', 'supabase/local.env'].map((file) => `${project}/${file}`)
  return { folders: [...folders], files }
}
