import { deepEqual, equal } from 'node:assert/strict'
import { APIError } from 'openai'
import { DeadlineError } from '../../functions/_shared/deadline.ts'
import { ModelError, toModelError } from '../../functions/_shared/llm/errors.ts'
import { readError, readPiece } from '../../functions/_shared/llm/read.ts'
import { estimateTokens } from '../../functions/_shared/llm/tokens.ts'

const text = (body: unknown) => readPiece(body)?.text

Deno.test('answers are understood in the form of OpenAI, of Ollama, and of small servers', () => {
  equal(text({ choices: [{ message: { content: 'a' }, finish_reason: 'stop' }] }), 'a')
  equal(text({ choices: [{ delta: { content: 'b' } }] }), 'b')
  equal(text({ choices: [{ text: 'c' }] }), 'c')
  equal(text({ choices: [{ message: { content: [{ type: 'text', text: 'd' }, { type: 'image' }] } }] }), 'd')
  equal(text({ message: { role: 'assistant', content: 'e' }, done: true }), 'e')
  equal(text({ response: 'f', done: true }), 'f')
  equal(text({ content: 'g' }), 'g')
  equal(text([{ generated_text: 'h' }]), 'h')
})

Deno.test('what holds no answer is no answer, and an empty list of choices no crash', () => {
  for (const body of [null, 'text', 5, {}, { detail: 'x' }]) equal(readPiece(body), null)
  deepEqual(readPiece({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } }), {
    text: '',
    finishReason: null,
    usage: { prompt_tokens: 3, completion_tokens: 4, cached_tokens: 0, estimated: false },
  })
})

Deno.test('an error inside a 200 is seen in each of its forms', () => {
  equal(readError({ error: { code: 502, message: 'x' } })?.code, '502')
  equal(readError([{ error: { code: 'y' } }])?.code, 'y')
  equal(readError({ error: 'words' })?.code, 'error')
  equal(readError({ choices: [] }), null)
})

Deno.test('failures say whether the same route may do better later, and when', () => {
  const from = (status: number | undefined, body: object = {}, headers: Record<string, string> = {}) => {
    const { code, retryable, retryAfterSeconds } = toModelError(
      new APIError(status as never, body, 'a page of HTML', new Headers(headers)),
    )
    return [code, retryable, retryAfterSeconds]
  }
  deepEqual(from(429, {}, { 'retry-after': '7' }), ['provider_rate_limited', true, 7])
  deepEqual(from(429, {}, { 'retry-after': '999999' }), ['provider_rate_limited', true, 3600])
  deepEqual(from(429, { code: 'insufficient_quota' }), ['provider_quota_exhausted', false, undefined])
  deepEqual(from(402), ['provider_quota_exhausted', false, undefined])
  deepEqual(from(401), ['provider_refused_key', false, undefined])
  deepEqual(from(400, { code: 'context_length_exceeded' }), ['context_too_long', false, undefined])
  deepEqual(from(404), ['provider_refused_request', false, undefined])
  deepEqual(from(503), ['provider_unavailable', true, undefined])
  deepEqual(from(undefined, { code: 502 }), ['provider_unavailable', true, undefined])
  equal(toModelError(new DeadlineError('model', 5)).code, 'provider_timeout')
  equal(toModelError(new TypeError('error reading a body')).code, 'answer_interrupted')
  equal(toModelError(new ModelError('answer_empty', true)).code, 'answer_empty')
})

Deno.test('tokens are estimated by script', () => {
  equal(estimateTokens(''), 0)
  equal(estimateTokens('abcdefgh'), 2)
  equal(estimateTokens('你好'), 2)
})
