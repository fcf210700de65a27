import OpenAI from 'openai'

/** A client of one provider. It tries once unless told otherwise: going on to another route is ours to decide. */
export function clientOf(
  provider: { baseURL: string; apiKey: string },
  { timeout, maxRetries = 0 }: { timeout: number; maxRetries?: number },
): OpenAI {
  return new OpenAI({
    ...provider,
    maxRetries,
    timeout,
    // Else a stray OPENAI_ORG_ID of this process goes to every other provider too.
    organization: null,
    project: null,
    logLevel: 'off',
    // No provider redirects a POST; one that did would send the key and the prompt wherever it likes.
    fetchOptions: { redirect: 'error' },
  })
}
