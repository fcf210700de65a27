/**
 * Makes text safe for Postgres, which stores neither NUL nor half of a surrogate pair. The one place that does so for
 * text from outside (models); text from clients is refused instead, see `storableText` in types/common.ts.
 */
export function safeText(text: string): string {
  return text.replaceAll('\u0000', '\ufffd').toWellFormed()
}

export interface TextStream {
  /** Returns what can be stored of everything pushed so far; a high surrogate at the end waits for its other half. */
  push(delta: string): string
  /** Returns what is left at the end of the text: a high surrogate that stayed alone becomes U+FFFD. */
  end(): string
}

/** A stream of deltas made safe one by one: providers cut between the halves of a pair. */
export function textStream(): TextStream {
  let held = ''
  return {
    push(delta) {
      const text = held + delta
      const last = text.charCodeAt(text.length - 1)
      held = last >= 0xd800 && last <= 0xdbff ? text.slice(-1) : ''
      return safeText(held ? text.slice(0, -1) : text)
    },
    end() {
      const rest = safeText(held)
      held = ''
      return rest
    },
  }
}
