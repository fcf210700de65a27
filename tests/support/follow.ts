import type { SupabaseClient } from '@supabase/supabase-js'
import type { Answer } from '../../client/follow-answer.ts'
import type { Talk } from './chat.ts'
import type { Person } from './local.ts'

/** Collects what a reader was shown; `add` is for `onChange`. */
export function recordOf() {
  const states: { attempt: number; seq: number; text: string; status: string }[] = []
  return {
    states,
    add: ({ attempt, seq, text, status }: Answer) => void states.push({ attempt, seq, text, status }),
  }
}

/** `fetch` whose connections are really closed after some of their bytes, inside an event or between two. */
export function cuttingFetch(mostBytes: number, onCut: () => void): typeof fetch {
  return async (input, init) => {
    const cut = new AbortController()
    const signal = init?.signal ? AbortSignal.any([init.signal, cut.signal]) : cut.signal
    const response = await fetch(input, { ...init, signal })
    if (!response.ok) return response
    // A few live, or nobody would ever read the longest event, which is the last.
    let left = Math.random() < 0.05 ? Number.MAX_SAFE_INTEGER : Math.floor(Math.random() * mostBytes)
    const body = response.body!.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(bytes, controller) {
          controller.enqueue(bytes.slice(0, left))
          left -= bytes.length
          if (left > 0) return
          onCut()
          cut.abort()
          if (left % 2) controller.error(new TypeError('network error'))
          else controller.terminate()
        },
      }),
    )
    return new Response(body, { status: response.status, headers: response.headers })
  }
}

/** A client whose broadcasts get lost, come late, and come twice. */
export function faultyBroadcasts(
  client: SupabaseClient,
  faults: { dropped: number; late: number; doubled: number },
  heard: { delta: number },
): SupabaseClient {
  const spoilt = (deliver: (message: { event: string }) => void) => (message: { event: string }) => {
    if (message.event === 'generation.delta') heard.delta += 1
    const luck = Math.random()
    if (luck < 0.25) faults.dropped += 1
    else if (luck < 0.45) {
      faults.late += 1
      setTimeout(() => deliver(message), Math.random() * 800)
    } else deliver(message)
    if (luck > 0.8) {
      faults.doubled += 1
      setTimeout(() => deliver(message), Math.random() * 300)
    }
  }
  return {
    rpc: client.rpc.bind(client),
    removeChannel: client.removeChannel.bind(client),
    channel(...args: Parameters<SupabaseClient['channel']>) {
      const channel = client.channel(...args)
      const on = channel.on.bind(channel) as (...args: unknown[]) => unknown
      channel.on = ((kind: string, filter: object, deliver: never) => on(kind, filter, spoilt(deliver))) as never
      return channel
    },
  } as unknown as SupabaseClient
}

/** Brings somebody into a conversation. */
export async function invite(talk: Talk, guest: Person): Promise<void> {
  const { conversationId: conversation_id } = talk
  const invited = await talk.person.client.rpc('invite_participant', { conversation_id, user_id: guest.id })
  if (invited.error) throw invited.error
  const accepted = await guest.client.rpc('accept_invitation', { conversation_id })
  if (accepted.error) throw accepted.error
}
