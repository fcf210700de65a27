import type { ChatCompletionCreateParams } from 'openai/resources/chat/completions'
import type { ChatMessage, Dialect, Route, Settings } from './route.ts'

/** An answer in a form: a JSON schema with a name. */
export interface Format {
  name: string
  schema: Record<string, unknown>
}

interface Profile {
  limit: 'max_tokens' | 'max_completion_tokens'
  hottest: number
  format: boolean
}

/**
 * What each provider takes beyond model and messages; nothing else is ever sent. Left out everywhere: `name` (Groq refuses
 * it), `user` and `metadata` (nobody outside learns who asks), `n`, `seed`, penalties and log probabilities.
 */
const profiles: Record<Dialect, Profile> = {
  // Models that think refuse `max_tokens`.
  openai: { limit: 'max_completion_tokens', hottest: 2, format: true },
  // Caps temperature at 1 and ignores response_format without a word.
  anthropic: { limit: 'max_tokens', hottest: 1, format: false },
  google: { limit: 'max_tokens', hottest: 2, format: true },
  groq: { limit: 'max_tokens', hottest: 2, format: true },
  openrouter: { limit: 'max_tokens', hottest: 2, format: true },
  compatible: { limit: 'max_tokens', hottest: 2, format: true },
}

/** The body of a request, with only the fields that the route takes. */
export function requestFor(
  route: Route,
  messages: ChatMessage[],
  { temperature, max_tokens }: Settings,
  format?: Format,
): ChatCompletionCreateParams {
  const profile = profiles[route.dialect] ?? profiles.compatible
  return {
    model: route.model,
    messages: shaped(route, messages, format && takesFormat(route) ? undefined : format),
    ...(max_tokens && { [profile.limit]: max_tokens }),
    ...(typeof temperature === 'number' &&
      route.takes_temperature && { temperature: Math.min(temperature, profile.hottest) }),
    ...(format &&
      takesFormat(route) && {
        response_format: { type: 'json_schema' as const, json_schema: { ...format, strict: true } },
      }),
    ...(route.streams
      ? { stream: true as const, stream_options: { include_usage: true } }
      : { stream: false as const }),
  }
}

const takesFormat = (route: Route) => route.takes_json_schema && (profiles[route.dialect] ?? profiles.compatible).format

/** Role and content of each message; what the route cannot be told in one way is told in the next best one. */
function shaped(route: Route, messages: ChatMessage[], spoken: Format | undefined): ChatMessage[] {
  const plain = messages.map(({ role, content }) => ({ role, content }))
  const system = plain.filter(({ role }) => role === 'system').map(({ content }) => content)
  if (spoken) {
    system.push(
      `Answer with one JSON document and nothing else, no code fence. It conforms to this JSON Schema:\n${JSON.stringify(spoken.schema)}`,
    )
  } else if (route.takes_system) {
    return plain
  }
  const rest = plain.filter(({ role }) => role !== 'system')
  const words = system.join('\n\n')
  if (!words) return rest
  if (route.takes_system) return [{ role: 'system', content: words }, ...rest]
  const first = rest.findIndex(({ role }) => role === 'user')
  if (first < 0) return [{ role: 'user', content: words }, ...rest]
  return rest.map((message, index) =>
    index === first ? { ...message, content: `${words}\n\n${message.content}` } : message,
  )
}
