import type { Completed } from '../llm/complete.ts'
import type { RoutePlan, Settings } from '../llm/route.ts'
import type { PromptMaterial } from '../prompt/material.ts'
import type { Trace } from '../prompt/trace.ts'

/** What `service.claim_generation` hands to the one runner that holds the lease. */
export interface Claim extends RoutePlan {
  generation_id: string
  attempt: number
  lease_token: string
  lease_seconds: number
  conversation_id: string
  message_id: string
  /** Number of the next chunk; more than 1 after a planned hand-over, and then `partial` is what is written. */
  next_seq: number
  partial: string
  settings: Settings
  prompt: PromptMaterial
}

export interface Chunk {
  seq: number
  text: string
}

/** One entry of `service.append_chunks`; without chunks it is a heartbeat. */
export interface AppendEntry {
  generation_id: string
  attempt: number
  lease_token: string
  chunks: Chunk[]
  /** The route that is asked, and what this call has used until now, by estimate: both count when the runner dies. */
  route_id: string | null
  usage: Completed['usage'] | null
}

export interface AppendResult {
  generation_id: string
  lease_lost: boolean
  cancel_requested: boolean
  /** Chunks up to this one are stored; they were not taken behind a gap. */
  last_seq: number
}

/** How an attempt ended, for `service.finish_generation`. `retry` hands the generation to the next runner. */
export interface Outcome {
  status: 'completed' | 'failed' | 'cancelled' | 'retry'
  finish_reason: string | null
  usage: Completed['usage'] | null
  error: { code: string; detail: string; retryable: boolean } | null
  retry_after_seconds: number | null
  /** With `retry`: planned, so that the next runner goes on where this one stopped, in the same attempt. */
  hand_over: boolean
  /** The route that answered, or was tried last. */
  route_id: string | null
  provider_request_id: string | null
  /** Messages that moderation refused: their text goes. */
  refused?: string[]
  /** What was in the prompt, the hash of its stable beginning, and its tokens by the estimate, uncorrected. */
  trace?: Trace & { is_second_try: boolean }
  prefix_hash?: string
  prompt_tokens_estimated?: number
  /** The branch outgrows the model: a summary should tell it up to this message. */
  outgrown?: string | null
}

export interface FinishResult {
  status: 'completed' | 'failed' | 'cancelled' | 'queued' | 'lost_lease'
  message?: Record<string, unknown> | null
  usage?: Record<string, unknown> | null
  error?: { code?: string; retryable?: boolean } | null
}
