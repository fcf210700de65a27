import type { SupabaseClient } from '@supabase/supabase-js'
import { fromDatabase } from '../problem.ts'
import type { FinishResult } from './contract.ts'

export type MessageRow = Record<string, unknown> & { id: string; content: string }

/** An answer as `read_generation` gives it: its state, and the chunks after what the reader has. */
export interface GenerationState {
  generation_id: string
  job_id: string | null
  status: 'queued' | 'running' | FinishResult['status']
  attempt: number
  chunks: { seq: number; text: string }[]
  /** Number of the newest chunk of this attempt, 0 while there is none. */
  last_seq: number
  error: FinishResult['error']
  usage: Record<string, unknown> | null
  /** Once it has ended. */
  message: MessageRow | null
}

/** Where a reader is: everything up to `seq` of `attempt` has been shown. */
export interface Cursor {
  attempt: number
  seq: number
}

/** Reads one answer as the caller; null when there is none that the caller may read. */
export type Reader = (after: Cursor) => Promise<GenerationState | null>

export function createReader(db: SupabaseClient, generationId: string): Reader {
  return async ({ attempt, seq }) => {
    const { data, error } = await db.rpc('read_generation', {
      generation_id: generationId,
      after_attempt: attempt,
      after_seq: seq,
    })
    if (!error) return data as GenerationState
    const problem = fromDatabase(error)
    if (problem.status === 404) return null
    throw problem
  }
}
