/** A restart for every keystroke of a save-all would be several: the changes of this long count as one. */
const debounceMs = 150

/**
 * Calls `changed` once, when a source file below one of `folders` is written, added, moved or removed, or one of
 * `files`. Nothing inside `ignored` (the data folder) counts.
 */
export function watchSources(options: {
  folders: string[]
  files: string[]
  ignored: string
  changed(path: string): void
}): () => void {
  const { folders, files, ignored, changed } = options
  const parents = new Set(files.map((file) => file.slice(0, file.lastIndexOf('/'))).filter(exists))
  const watchers = [
    ...folders.filter(exists).map((folder) => ({
      watcher: Deno.watchFs(folder, { recursive: true }),
      counts: (path: string) => isSource(path.slice(folder.length)),
    })),
    ...[...parents].map((folder) => ({
      watcher: Deno.watchFs(folder, { recursive: false }),
      counts: (path: string) => files.includes(path),
    })),
  ]
  let timer: ReturnType<typeof setTimeout> | undefined
  for (const { watcher, counts } of watchers) {
    follow(watcher, (path) => {
      if (path === ignored || path.startsWith(`${ignored}/`) || !counts(path)) return
      clearTimeout(timer)
      timer = setTimeout(() => changed(path), debounceMs)
    })
  }
  return () => {
    clearTimeout(timer)
    for (const { watcher } of watchers) watcher.close()
  }
}

async function follow(watcher: Deno.FsWatcher, seen: (path: string) => void) {
  try {
    for await (const event of watcher) {
      if (event.kind !== 'access') for (const path of event.paths) seen(path)
    }
  } catch (error) {
    // Too many watches, or the folder went away: the functions are still served, changes need a restart by hand.
    console.error('changes of the functions are no longer watched:', error)
  }
}

/** Editors' swap files, backups and hidden folders are no sources. */
function isSource(path: string): boolean {
  return !/\/(\.|node_modules\/)/.test(path) && !/(~|\.swp|\.tmp|\.log|\/\d+)$/.test(path)
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory
  } catch {
    return false
  }
}
