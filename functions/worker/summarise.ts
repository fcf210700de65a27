import { z } from 'zod'
import { NoAnswer } from '../_shared/llm/ask.ts'
import { type Completion, failureOf, finishCompletion, say } from '../_shared/llm/completion.ts'
import { budgetOf } from '../_shared/prompt/budget.ts'
import { mostPasses, summaryRequest, summarySettings, tellable, type Untold } from '../_shared/prompt/summarise.ts'
import type { Handler } from './worker.ts'

const summarisePayload = z.object({ conversation_id: z.guid(), message_id: z.guid() })

/** What `service.begin_summary` hands out. */
interface Summary extends Completion, Untold {
  fingerprint: string
}

/**
 * Has the conversation's model tell the beginning of a branch, a part at a time, and keeps it unless somebody changed what
 * it tells meanwhile. What was used is a completion of the conversation's owner.
 */
export const summarise: Handler = async (job, { env, log, signal, progress }) => {
  const { conversation_id, message_id } = summarisePayload.parse(job.payload)
  const begun = await env.service.call<Summary | null>('begin_summary', conversation_id, message_id)
  if (!begun) return { status: 'completed', result: { kept: false } }
  try {
    // Each route may come to answer each part.
    const budget = Math.min(...begun.routes.map((route) => budgetOf(route, summarySettings).prompt), 32_000)
    let rest = tellable(begun, budget)
    let { summary } = begun
    for (let pass = 1; rest.length > 0 && pass <= mostPasses; pass += 1) {
      const total = rest.length
      const request = summaryRequest({ ...begun, summary, messages: rest }, budget)
      const { text } = await say({
        env,
        log,
        completion: begun,
        messages: request.messages,
        settings: summarySettings,
        signal,
      })
      summary = text.trim()
      rest = request.rest
      progress(Math.round((1 - rest.length / total) * 90))
    }
    await finishCompletion(env, begun, { outcome: 'completed' })
    const kept = await env.service.call<boolean>(
      'keep_summary',
      begun.completion_id,
      conversation_id,
      message_id,
      begun.fingerprint,
      summary,
    )
    return { status: 'completed', result: { kept } }
  } catch (error) {
    const { outcome, code, retryable } = failureOf(error, signal)
    await finishCompletion(env, begun, { outcome, code })
    if (!(error instanceof NoAnswer) && !signal.aborted) throw error
    return {
      status: retryable ? 'retry' : 'failed',
      error: { code, detail: 'The model told no summary.' },
      ...(error instanceof NoAnswer && { retry_after_seconds: error.reason.retryAfterSeconds }),
    }
  }
}
