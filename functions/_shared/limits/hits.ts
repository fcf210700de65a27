import { inBackground, onUnload } from '../background.ts'
import type { ServiceDatabase } from '../database.ts'
import { pause } from '../deadline.ts'
import type { Call } from './limiter.ts'

interface Hit {
  key: string
  taken: number
  refused: number
}

/**
 * Counts what a store outside the database lets through and refuses, for `admin.rate_hits`, and hands it to the database
 * once a second. Counts are kept while the database cannot take them; those of an isolate that is killed are lost.
 */
export function countHits(
  service: () => Pick<ServiceDatabase, 'call'>,
  everyMs = 1000,
): (route: string, call: Call, allowed: boolean) => void {
  let hits = new Map<string, Hit>()
  let isWaiting = false
  const leaving = new AbortController()
  onUnload(() => {
    leaving.abort()
    return undefined
  })

  const add = ({ key, taken, refused }: Hit) => {
    const before = hits.get(key)
    hits.set(key, { key, taken: (before?.taken ?? 0) + taken, refused: (before?.refused ?? 0) + refused })
    if (isWaiting) return
    isWaiting = true
    inBackground(pause(everyMs, leaving.signal).then(handOver))
  }
  const handOver = async () => {
    const batch = [...hits.values()]
    hits = new Map()
    isWaiting = false
    try {
      await service().call('add_rate_hits', batch)
    } catch {
      if (!leaving.signal.aborted) batch.forEach(add)
    }
  }

  return (route, { userId }, allowed) =>
    add({
      key: `${route} ${userId ? `user:${userId}` : 'visitors'}`,
      taken: Number(allowed),
      refused: Number(!allowed),
    })
}
