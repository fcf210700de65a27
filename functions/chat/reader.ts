import type { SupabaseClient } from '@supabase/supabase-js'
import { fromDatabase } from '../_shared/problem.ts'

export interface GenerationRow {
  id: string
  message_id: string
  status: string
  attempt: number
  error: { code?: string; retryable?: boolean } | null
  usage: Record<string, unknown> | null
  job_id: string | null
}

export type MessageRow = Record<string, unknown> & { id: string; content: string }

/** Reads answers as the caller: what row level security hides looks absent. */
export interface Reader {
  pageSize: number
  generation(id: string): Promise<GenerationRow | null>
  chunks(generationId: string, attempt: number, afterSeq: number): Promise<{ seq: number; text: string }[]>
  message(id: string): Promise<MessageRow | null>
}

export function createReader(db: SupabaseClient): Reader {
  const pageSize = 1000
  return {
    pageSize,
    async generation(id) {
      const { data, error } = await db
        .from('generations')
        .select('id, message_id, status, attempt, error, usage, job_id')
        .eq('id', id)
        .maybeSingle()
      if (error) throw fromDatabase(error)
      return data
    },
    async chunks(generationId, attempt, afterSeq) {
      const { data, error } = await db
        .from('generation_chunks')
        .select('seq, text')
        .eq('generation_id', generationId)
        .eq('attempt', attempt)
        .gt('seq', afterSeq)
        .order('seq')
        .limit(pageSize)
      if (error) throw fromDatabase(error)
      return data
    },
    async message(id) {
      const { data, error } = await db.from('messages').select('*').eq('id', id).maybeSingle()
      if (error) throw fromDatabase(error)
      return data
    },
  }
}
