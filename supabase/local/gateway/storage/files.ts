import { createHash } from 'node:crypto'

/** Bytes of uploaded files. Named by a version that is never used twice, so that a name from outside is never a path. */
export interface Files {
  /** Writes a new file; throws TooLarge, and then nothing is left. */
  write(
    version: string,
    body: ReadableStream<Uint8Array> | null,
    limit: number,
  ): Promise<{ size: number; etag: string }>
  copy(from: string, to: string): Promise<void>
  /** Bytes `start` to `end`, both included. */
  read(version: string, start: number, end: number): Promise<ReadableStream<Uint8Array>>
  remove(versions: (string | null)[]): Promise<void>
  /** Versions whose bytes were written before that time. */
  olderThan(time: number): Promise<string[]>
}

export class TooLarge extends Error {}

export async function openFiles(folder: string): Promise<Files> {
  const unfinished = `${folder}/unfinished`
  await Deno.remove(unfinished, { recursive: true }).catch(() => {})
  await Deno.mkdir(unfinished, { recursive: true, mode: 0o700 })
  const path = (version: string) => `${folder}/${version.slice(0, 2)}/${version}`

  /** A file appears under its name complete and on disk, or not at all. */
  async function keep(version: string, fill: (file: Deno.FsFile) => Promise<void>) {
    const temporary = `${unfinished}/${version}`
    try {
      using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 })
      await fill(file)
      await file.sync()
      await Deno.mkdir(path(version).replace(/[^/]*$/, ''), { recursive: true })
      await Deno.rename(temporary, path(version))
    } catch (error) {
      await Deno.remove(temporary).catch(() => {})
      throw error
    }
  }

  return {
    async write(version, body, limit) {
      const hash = createHash('md5')
      let size = 0
      await keep(version, async (file) => {
        for await (const chunk of body ?? []) {
          size += chunk.byteLength
          if (size > limit) throw new TooLarge()
          hash.update(chunk)
          for (let at = 0; at < chunk.byteLength; ) at += await file.write(chunk.subarray(at))
        }
      })
      return { size, etag: `"${hash.digest('hex')}"` }
    },
    async copy(from, to) {
      using source = await Deno.open(path(from))
      await keep(to, async (file) => await source.readable.pipeTo(file.writable, { preventClose: true }))
    },
    async read(version, start, end) {
      const file = await Deno.open(path(version))
      await file.seek(start, Deno.SeekMode.Start)
      let left = end - start + 1
      return new ReadableStream({
        type: 'bytes',
        async pull(controller) {
          const chunk = new Uint8Array(Math.min(left, 64 * 1024))
          const read = left > 0 ? await file.read(chunk) : null
          if (read === null) {
            file.close()
            controller.close()
            controller.byobRequest?.respond(0)
            return
          }
          left -= read
          controller.enqueue(chunk.subarray(0, read))
        },
        cancel: () => file.close(),
      })
    },
    async remove(versions) {
      await Promise.all(versions.map((version) => version && Deno.remove(path(version)).catch(() => {})))
    },
    async olderThan(time) {
      const old: string[] = []
      for await (const { name } of Deno.readDir(folder)) {
        if (!/^[\da-f]{2}$/.test(name)) continue
        for await (const file of Deno.readDir(`${folder}/${name}`)) {
          const { mtime } = await Deno.stat(`${folder}/${name}/${file.name}`).catch(() => ({ mtime: null }))
          if (mtime && mtime.getTime() < time) old.push(file.name)
        }
      }
      return old
    },
  }
}
