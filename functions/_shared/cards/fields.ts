import { cardDataV2, cardDataV3, cardV1, type Json } from '../../../types/cards.ts'
import { at } from './error.ts'
import { isObject } from './json.ts'
import { type Field, inExtensions, type Level, shapeOf, type Values } from './level.ts'
import { asString, greetings, peopleText, promptText, type Reading, tags, toLine, whole } from './texts.ts'

/** Columns of `characters` that a card speaks of. */
export interface CardCharacter {
  name: string
  nickname: string
  description: string
  greeting: string
  alternate_greetings: string[]
  tags: string[]
  creator_notes: string
  creator: string
  card_version: string
}

export interface DepthPrompt {
  prompt: string
  depth: number
  role: 'system' | 'user' | 'assistant'
}

/** Columns of `character_definitions` that a card speaks of, but for `card_extras`. */
export interface CardDefinition {
  system_instruction: string
  personality: string
  scenario: string
  backstory: string
  example_dialogue: string
  post_history_instructions: string
  group_only_greetings: string[]
  depth_prompt: DepthPrompt | null
}

export const characterColumns = [
  'name',
  'nickname',
  'description',
  'greeting',
  'alternate_greetings',
  'tags',
  'creator_notes',
  'creator',
  'card_version',
] as const satisfies (keyof CardCharacter)[]

export const definitionColumns = [
  'system_instruction',
  'personality',
  'scenario',
  'backstory',
  'example_dialogue',
  'post_history_instructions',
  'group_only_greetings',
  'depth_prompt',
] as const satisfies (keyof CardDefinition)[]

/** Some columns of a row. */
export const pick = <Row, Column extends keyof Row>(row: Row, columns: readonly Column[]): Pick<Row, Column> =>
  Object.fromEntries(columns.map((column) => [column, row[column]])) as Pick<Row, Column>

export type CardRow = CardCharacter & CardDefinition
type Column<Type> = { [K in keyof CardRow]: CardRow[K] extends Type ? K : never }[keyof CardRow]

/** Text of a prompt. */
const prompted = (key: string, column: Column<string>, max: number): Field<CardRow> => ({
  keys: [key],
  read: (values, { place }) => ({ [column]: promptText(values.get(key), max, at(place, key)) }),
  write: (row) => ({ [key]: row[column] }),
})

const one = (
  key: string,
  column: keyof CardRow,
  read: (raw: Json | undefined, reading: Reading) => string | string[],
): Field<CardRow> => ({
  keys: [key],
  read: (values, reading) => ({ [column]: read(values.get(key), reading) }),
  write: (row) => ({ [key]: row[column] as Json }),
})

/** A field without a column: kept as it is, as long as it is what the specification asks for. */
const opaque = <Row>(key: string): Field<Row> => ({ keys: [key], read: () => ({}), write: () => ({}) })

const depthPrompt = inExtensions('depth_prompt')
const roles = ['system', 'user', 'assistant'] as const

function readDepthPrompt(values: Values, { place }: Reading): DepthPrompt | null {
  const raw = values.get(depthPrompt)
  if (!isObject(raw)) return null
  const prompt = promptText(raw.prompt, 16_000, at(at(at(place, 'extensions'), 'depth_prompt'), 'prompt'))
  if (!/[^\s\u0085\u180e\u200b]/.test(prompt)) return null
  const role = roles.find((name) => name === raw.role) ?? 'system'
  return { prompt, depth: whole(raw.depth, 0, 9999) ?? 4, role }
}

export const cardLevel: Level<CardRow> = {
  shapes: { v1: shapeOf(cardV1), v2: shapeOf(cardDataV2), v3: shapeOf(cardDataV3) },
  defaults: {},
  fields: [
    {
      keys: ['name'],
      // A card may leave its name empty; a character needs one.
      read: (values) => ({ name: toLine(asString(values.get('name')), 80) || 'Unnamed' }),
      write: ({ name }) => ({ name }),
    },
    {
      keys: ['description'],
      // What a card calls its description is written for the model, often long, and not for strangers: it becomes the
      // backstory. The public description of a character goes into its card before it.
      read: (values, { place }) => ({
        description: '',
        backstory: promptText(values.get('description'), 32_000, at(place, 'description')),
      }),
      write: ({ description, backstory }) => ({
        description: description && backstory ? `${description}\n\n${backstory}` : description || backstory,
      }),
    },
    prompted('personality', 'personality', 16_000),
    prompted('scenario', 'scenario', 16_000),
    prompted('first_mes', 'greeting', 8000),
    prompted('mes_example', 'example_dialogue', 32_000),
    prompted('system_prompt', 'system_instruction', 16_000),
    prompted('post_history_instructions', 'post_history_instructions', 16_000),
    one('creator_notes', 'creator_notes', (raw) => peopleText(raw, 16_000)),
    one('creator', 'creator', (raw) => toLine(asString(raw), 120)),
    one('character_version', 'card_version', (raw) => toLine(asString(raw), 60)),
    one('alternate_greetings', 'alternate_greetings', (raw, { place }) =>
      greetings(raw, at(place, 'alternate_greetings')),
    ),
    one('group_only_greetings', 'group_only_greetings', (raw, { place }) =>
      greetings(raw, at(place, 'group_only_greetings')),
    ),
    one('tags', 'tags', tags),
    {
      keys: ['nickname'],
      read: (values) => ({ nickname: toLine(asString(values.get('nickname')), 80) }),
      write: ({ nickname }) => ({ nickname: nickname || undefined }),
    },
    {
      keys: [depthPrompt],
      read: (values, reading) => ({ depth_prompt: readDepthPrompt(values, reading) }),
      write: ({ depth_prompt }) => ({ [depthPrompt]: depth_prompt ? { ...depth_prompt } : undefined }),
    },
    ...['creator_notes_multilingual', 'source', 'creation_date', 'modification_date', 'assets'].map(opaque<CardRow>),
  ],
}
