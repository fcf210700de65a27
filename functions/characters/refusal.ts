import { CardError } from '../_shared/cards/error.ts'
import { Problem } from '../_shared/problem.ts'

/** What cannot even be read, as against what is read and not allowed. */
const unreadable = /^(png_\w+|card_not_json|card_not_utf8|card_base64_broken)$/

const tooLarge = new Set(['card_too_large', 'png_text_too_large'])

/** Runs a reading of a card; a refusal becomes a problem with the same code. */
export async function orProblem<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof CardError)) throw error
    const { code, detail, pointer } = error
    const status = tooLarge.has(code) ? 413 : unreadable.test(code) ? 400 : 422
    throw new Problem(status, code, detail, pointer === undefined ? {} : { errors: [{ pointer, code, detail }] })
  }
}
