import { exists } from './binaries.ts'
import type { Project } from './config.ts'
import type { Stack } from './stack.ts'

/** Uploads the files of each bucket's `objects_path`, as `supabase seed buckets` does on hosted. What is there stays. */
export async function uploadBucketFiles(stack: Stack, project: Project, say: (text: string) => void): Promise<void> {
  for (const [bucket, { objects_path }] of Object.entries(project.storage.buckets)) {
    if (objects_path === null) continue
    if (!exists(objects_path)) {
      say(`the bucket ${bucket} has no folder ${objects_path}: nothing is uploaded`)
      continue
    }
    for (const name of filesBelow(objects_path)) {
      const response = await fetch(
        `${stack.url}/storage/v1/object/${bucket}/${name.split('/').map(encodeURIComponent).join('/')}`,
        {
          method: 'POST',
          headers: {
            apikey: stack.keys.secret,
            'content-type': contentTypes[name.replace(/^.*\./, '').toLowerCase()] ?? 'application/octet-stream',
          },
          body: Deno.readFileSync(`${objects_path}/${name}`),
        },
      )
      const answer = await response.text()
      // The usual answer of every start but the first.
      if (!response.ok && !/Duplicate|already exists/.test(answer))
        say(`${name} cannot be put into ${bucket}: ${answer}`)
    }
  }
}

const contentTypes: Record<string, string> = {
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  webp: 'image/webp',
  svg: 'image/svg+xml',
  json: 'application/json',
  txt: 'text/plain',
}

function filesBelow(folder: string, prefix = ''): string[] {
  return [...Deno.readDirSync(`${folder}/${prefix}`)].flatMap((entry) => {
    if (entry.isDirectory) return filesBelow(folder, `${prefix}${entry.name}/`)
    return entry.isFile ? [`${prefix}${entry.name}`] : []
  })
}
