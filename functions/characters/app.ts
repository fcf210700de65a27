import type { Hono } from 'hono'
import {
  type CardSpec,
  type CardWarning,
  characterParams,
  exportOptions,
  importHeaders,
  importOptions,
  type JsonObject,
} from '../../types/cards.ts'
import { caller, requireUser } from '../_shared/auth.ts'
import { readBookFile, writeBookFile } from '../_shared/cards/book.ts'
import { readCard, writeCard } from '../_shared/cards/card.ts'
import { parseJson } from '../_shared/cards/json.ts'
import { limits } from '../_shared/cards/limits.ts'
import { understands } from '../_shared/cards/pattern.ts'
import { readPicture, writePicture } from '../_shared/cards/picture.ts'
import type { Env } from '../_shared/env.ts'
import { createService, parse, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'
import { fromDatabase, Problem } from '../_shared/problem.ts'
import { avatarPicture, storeAvatar } from './avatar.ts'
import { type ExportedCharacter, isMature, storedCard } from './mapping.ts'
import { orProblem } from './refusal.ts'
import { readJsonFile, readOptions, readUpload } from './upload.ts'

/** Builds the API of character cards. `env` supplies everything outside this process. */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'characters')
  app.use(requireUser(env), limitRate(env))

  /** Makes a private character of a card. The row comes first: a picture that fails costs the picture alone. */
  app.post('/import', async (c) => {
    const { 'idempotency-key': key } = parse(importHeaders, { 'idempotency-key': c.req.header('idempotency-key') })
    const { bytes, isPicture, fields } = await readUpload(c)
    const { age, is_mature } = parse(importOptions, readOptions(c, fields))
    const { card, rounded, picture, assets } = await orProblem(async () => {
      const file = isPicture ? await readPicture(bytes) : { json: bytes, picture: null, assets: [] }
      const rounded: CardWarning[] = []
      const json = parseJson(file.json, upTo(limits.warnings, rounded))
      return { ...file, rounded, card: readCard(json, understands) }
    })

    let character = await env.service.call<{ id: string; avatar_path: string | null }>(
      'import_character',
      caller(c).id,
      {
        character: {
          ...card.character,
          age,
          is_mature: is_mature === 'true' || isMature(card.tags),
          visibility: 'private',
        },
        definition: card.definition,
        lorebook: card.lorebook,
      },
      key,
    )
    const warnings = [...card.warnings, ...rounded, ...assets.map(assetWarning)]
    if (picture && !character.avatar_path) {
      const stored = await storeAvatar(env, caller(c), character.id, picture, c.get('log'))
      if (stored) character = { ...character, avatar_path: stored }
      else warnings.push(pictureWarning)
    }
    return c.json({ character, spec: card.spec, warnings }, 201)
  })

  /** Not as the caller: what others may see of a character is decided by the function that reads it for them. */
  app.get('/:id/export', async (c) => {
    const { id } = parse(characterParams, c.req.param())
    const { format, spec } = parse(exportOptions, c.req.query())
    const found = await env.service.call<ExportedCharacter>('export_character', caller(c).id, id)
    const { stored, ...dates } = storedCard(found)
    const write = (to: CardSpec) => writeCard(stored, to, { ...dates, understands })
    c.header('content-disposition', attachment(found.character.name, format))
    if (format === 'json') return c.json(write(spec))

    const cards = spec === 'v3' ? { chara: copyForOldReaders(write('v2')), ccv3: write('v3') } : { chara: write(spec) }
    const picture = writePicture(await avatarPicture(env, found.character.avatar_path, c.get('log')), cards)
    return c.body(picture, 200, { 'content-type': 'image/png' })
  })

  app.post('/:id/lorebook', async (c) => {
    const { id } = parse(characterParams, c.req.param())
    const bytes = await readJsonFile(c)
    const warnings: CardWarning[] = []
    const warn = upTo(limits.warnings, warnings)
    const book = await orProblem(() => readBookFile(parseJson(bytes, warn), warn, understands))
    const { data, error } = await env.db(caller(c).token).rpc('replace_lorebook', { lorebook: book, character_id: id })
    if (error) throw fromDatabase(error)
    return c.json({ lorebook: data, entries: book.entries.length, warnings })
  })

  /** A stranger is told what an owner without a book is told. */
  app.get('/:id/lorebook', async (c) => {
    const { id } = parse(characterParams, c.req.param())
    const { lorebook, character } = await env.service.call<ExportedCharacter>('export_character', caller(c).id, id)
    if (!lorebook)
      throw new Problem(404, 'lorebook_not_found', 'You have no character with this id that has a lorebook.')
    c.header('content-disposition', attachment(`${character.name} lorebook`, 'json'))
    return c.json(writeBookFile(lorebook, understands))
  })

  return app
}

/** Collects warnings until there are enough. */
const upTo = (most: number, warnings: CardWarning[]) => (warning: CardWarning) => {
  if (warnings.length < most) warnings.push(warning)
}

const pictureWarning: CardWarning = {
  pointer: '#',
  code: 'picture_not_stored',
  detail: 'The picture of the card was not stored: it is larger than 5 MB, or Storage did not take it.',
}

const assetWarning = (path: string): CardWarning => ({
  pointer: '#/data/assets',
  code: 'asset_not_kept',
  detail: `The picture carries the asset ${path}, which is not kept.`,
})

/** The V3 specification wants readers of V2 to be told what they miss. */
function copyForOldReaders(card: JsonObject): JsonObject {
  const data = card.data as JsonObject
  const notice = 'This is the V2 copy of a V3 card: open it with an application that reads V3 to see all of it.'
  return {
    ...card,
    data: { ...data, creator_notes: data.creator_notes ? `${notice}\n\n${data.creator_notes}` : notice },
  }
}

/** A file name for everybody, and the real one for whoever reads RFC 6266. */
function attachment(name: string, extension: string): string {
  const plain = name.replace(/[^\w -]+/g, '').trim() || 'character'
  const encoded = encodeURIComponent(name.toWellFormed()).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`)
  return `attachment; filename="${plain}.${extension}"; filename*=UTF-8''${encoded}.${extension}`
}
