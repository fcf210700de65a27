import type { CardWarning } from '../../../types/cards.ts'
import { pointer } from '../pointer.ts'

/** Why a file cannot be a card here; the code is stable, the pointer is the place inside the card's JSON. */
export class CardError extends Error {
  constructor(
    readonly code: string,
    readonly detail: string,
    readonly pointer?: string,
  ) {
    super(code)
    this.name = 'CardError'
  }
}

/** A place in a JSON document, as a linked list: most places are never written out. */
export type Place = { parent: Place; key: PropertyKey } | null

export const at = (parent: Place, key: PropertyKey): Place => ({ parent, key })

export function pointerOf(place: Place): string {
  const path: PropertyKey[] = []
  for (let here = place; here; here = here.parent) path.unshift(here.key)
  return pointer(path)
}

export type Warn = (warning: CardWarning) => void
