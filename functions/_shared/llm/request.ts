import type { ChatCompletionCreateParams } from 'openai/resources/chat/completions'
import type { ChatMessage, Dialect, Route, Settings } from './route.ts'

/** An answer in a form: a JSON schema with a name, or any JSON object. */
export type Format =
  | { type: 'json_schema'; name: string; schema: Record<string, unknown>; strict?: boolean }
  | { type: 'json_object' }

interface Profile {
  limit: 'max_tokens' | 'max_completion_tokens'
  hottest: number
  format: boolean
  seed: boolean
  /** `top_p` besides a temperature. */
  topP: boolean
  /** `frequency_penalty` and `presence_penalty`. */
  penalties: boolean
}

/**
 * What each provider takes beyond model, messages and `stop`; nothing else is ever sent. Left out everywhere: `name`
 * (Groq refuses it), `user` and `metadata` (nobody outside learns who asks), `n` and log probabilities.
 */
const profiles: Record<Dialect, Profile> = {
  // Models that think refuse `max_tokens`.
  openai: { limit: 'max_completion_tokens', hottest: 2, format: true, seed: true, topP: true, penalties: true },
  // Caps temperature at 1, takes no top_p beside it, and ignores the rest without a word.
  anthropic: { limit: 'max_tokens', hottest: 1, format: false, seed: false, topP: false, penalties: false },
  google: { limit: 'max_tokens', hottest: 2, format: true, seed: false, topP: true, penalties: false },
  groq: { limit: 'max_tokens', hottest: 2, format: true, seed: true, topP: true, penalties: false },
  openrouter: { limit: 'max_tokens', hottest: 2, format: true, seed: true, topP: true, penalties: true },
  compatible: { limit: 'max_tokens', hottest: 2, format: true, seed: true, topP: true, penalties: true },
}

/**
 * Where only the beginning may be the system's: Anthropic pulls what the system says anywhere to the top, and the chat
 * templates of many self-hosted models refuse it.
 */
const oneSystem = new Set<Dialect>(['anthropic', 'compatible'])

/** The body of a request, with only the fields that the route takes. */
export function requestFor(
  route: Route,
  messages: ChatMessage[],
  settings: Settings,
  format?: Format,
): ChatCompletionCreateParams {
  const { temperature, max_tokens, stop, seed, top_p, frequency_penalty, presence_penalty } = settings
  const profile = profiles[route.dialect] ?? profiles.compatible
  // Models that think for themselves refuse all of sampling.
  const samples = route.takes_temperature
  return {
    model: route.model,
    messages: shaped(route, messages, format && takesFormat(route) ? undefined : format),
    ...(max_tokens && { [profile.limit]: max_tokens }),
    ...(typeof temperature === 'number' && samples && { temperature: Math.min(temperature, profile.hottest) }),
    ...(typeof top_p === 'number' && samples && profile.topP && { top_p }),
    ...(frequency_penalty && samples && profile.penalties && { frequency_penalty }),
    ...(presence_penalty && samples && profile.penalties && { presence_penalty }),
    ...(stop?.length && { stop }),
    ...(typeof seed === 'number' && profile.seed && { seed }),
    ...(format && takesFormat(route) && { response_format: responseFormat(format) }),
    ...(route.streams
      ? { stream: true as const, stream_options: { include_usage: true } }
      : { stream: false as const }),
  }
}

function responseFormat(format: Format) {
  if (format.type === 'json_object') return format
  const { type, strict = true, ...form } = format
  return { type, json_schema: { ...form, strict } }
}

const takesFormat = (route: Route) => route.takes_json_schema && (profiles[route.dialect] ?? profiles.compatible).format

/** Role and content of each message; what the route cannot be told in one way is told in the next best one. */
function shaped(route: Route, messages: ChatMessage[], spoken: Format | undefined): ChatMessage[] {
  const plain = messages.map(({ role, content }) => ({ role, content }))
  const told = oneSystem.has(route.dialect) || !route.takes_system ? toldByUser(plain) : plain
  const opening = told.findIndex(({ role }) => role !== 'system')
  const system = told.slice(0, opening < 0 ? told.length : opening).map(({ content }) => content)
  if (spoken) {
    system.push(
      spoken.type === 'json_object'
        ? 'Answer with one JSON object and nothing else, no code fence.'
        : `Answer with one JSON document and nothing else, no code fence. It conforms to this JSON Schema:\n${JSON.stringify(spoken.schema)}`,
    )
  } else if (route.takes_system) {
    return told
  }
  const rest = opening < 0 ? [] : told.slice(opening)
  const words = system.join('\n\n')
  if (!words) return rest
  if (route.takes_system) return [{ role: 'system', content: words }, ...rest]
  const first = rest.findIndex(({ role }) => role === 'user')
  if (first < 0) return [{ role: 'user', content: words }, ...rest]
  return rest.map((message, index) =>
    index === first ? { ...message, content: `${words}\n\n${message.content}` } : message,
  )
}

/** Has the user say what the system would say behind the beginning, in one message with what they say themselves. */
function toldByUser(messages: ChatMessage[]): ChatMessage[] {
  const told: ChatMessage[] = []
  let begins = true
  for (const { role, content } of messages) {
    begins &&= role === 'system'
    const as = role === 'system' && !begins ? 'user' : role
    const last = told.at(-1)
    if (as === 'user' && last?.role === 'user') last.content += `\n\n${content}`
    else told.push({ role: as, content })
  }
  return told
}
