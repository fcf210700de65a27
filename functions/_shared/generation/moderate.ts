import type { Env } from '../env.ts'
import { ModelError } from '../llm/errors.ts'
import { refusedTexts } from '../llm/moderation.ts'
import type { Log } from '../log.ts'
import type { Claim } from './contract.ts'

type Message = Claim['prompt']['messages'][number]

/** An answer that somebody edited has an author, and is as much a person's text as what they say themselves. */
const isByPerson = ({ role, author_id }: Message) => role === 'user' || Boolean(author_id)

/** What moderation says of a prompt: ids of the messages that it refuses, and why the newest one cannot be answered. */
export interface Moderated {
  refused: string[]
  error: ModelError | null
}

const nothingRefused: Moderated = { refused: [], error: null }

/**
 * Looks at what people have written since the last answer of a model, where the chat function has not done so before it was
 * stored: the message came by rpc, or an earlier one was never answered. Takes refused earlier ones out of the claim's
 * prompt; their text has to go with the answer, since the next prompt begins to look behind it.
 */
export async function moderatePrompt(
  env: Pick<Env, 'provider' | 'limits' | 'service'>,
  claim: Claim,
  moderated: boolean,
  log: Log,
): Promise<Moderated> {
  const { messages } = claim.prompt
  const answered = messages.findLastIndex((message) => !isByPerson(message) && message.content !== '')
  const asked = messages.slice(answered + 1).filter((message) => isByPerson(message) && message.content !== '')
  const unseen = moderated ? asked.slice(0, -1) : asked
  if (unseen.length === 0) return nothingRefused
  try {
    const flags = await refusedTexts(
      env,
      unseen.map(({ content }) => content),
      log,
    )
    const refused = new Set(unseen.filter((_, index) => flags[index]))
    claim.prompt.messages = messages.filter((message) => !refused.has(message))
    return {
      refused: [...refused].flatMap(({ id }) => id ?? []),
      error: refused.has(asked.at(-1)!) ? new ModelError('content_refused', false) : null,
    }
  } catch (error) {
    if (error instanceof ModelError) return { refused: [], error }
    return { refused: [], error: new ModelError('moderation_unavailable', true, { cause: error }) }
  }
}
