import type { JsonObject } from '../../types/cards.ts'
import type { StoredBook } from '../_shared/cards/book.ts'
import type { StoredCard } from '../_shared/cards/card.ts'
import {
  type CardCharacter,
  type CardDefinition,
  characterColumns,
  definitionColumns,
  pick,
} from '../_shared/cards/fields.ts'

/** What `service.export_character` gives: all of it to the owner, to others the face alone. */
export interface ExportedCharacter {
  is_owner: boolean
  character: CardCharacter & {
    avatar_path: string | null
    version: number
    created_at: string
    updated_at: string
  }
  definition: (CardDefinition & { card_extras: JsonObject }) | null
  lorebook: StoredBook | null
}

/** Tags by which authors mark cards that are for adults. */
const matureTags = new Set([
  'nsfw',
  'nsfl',
  'mature',
  'adult',
  'adult only',
  '18+',
  'r18',
  'r-18',
  'explicit',
  'erotic',
  'erotica',
  'smut',
  'porn',
  'hentai',
  'lewd',
])

/** All tags of the card count, also those that a character has no room for. */
export const isMature = (tags: string[]): boolean => tags.some((tag) => matureTags.has(tag.trim().toLowerCase()))

/** The card that a character is, and the dates it states. */
export function storedCard({ character, definition, lorebook }: ExportedCharacter): {
  stored: StoredCard
  createdAt: number | null
  modifiedAt: number | null
} {
  const seconds = (time: string) => Math.floor(Date.parse(time) / 1000)
  const isImported = definition !== null && Object.hasOwn(definition.card_extras, 'spec')
  return {
    stored: {
      character: pick(character, characterColumns),
      definition: definition
        ? { ...pick(definition, definitionColumns), card_extras: definition.card_extras }
        : noDefinition,
      lorebook,
    },
    // A card that came in has its own dates, and stays as it was until somebody changes the character.
    createdAt: isImported ? null : seconds(character.created_at),
    modifiedAt: isImported && character.version === 1 ? null : seconds(character.updated_at),
  }
}

const noDefinition = {
  system_instruction: '',
  personality: '',
  scenario: '',
  backstory: '',
  example_dialogue: '',
  post_history_instructions: '',
  group_only_greetings: [],
  depth_prompt: null,
  card_extras: {},
}
