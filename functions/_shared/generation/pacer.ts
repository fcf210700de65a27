/** Readers get text at most this often. */
const beatMs = 80

const waiting = new Set<() => void>()
let timer: ReturnType<typeof setTimeout> | undefined

/** One clock for all answers of this isolate: a clock for each would wake it, and whoever passes text on, as many times. */
function atNextBeat(flush: () => void): void {
  waiting.add(flush)
  timer ??= setTimeout(
    () => {
      timer = undefined
      for (const due of waiting) due()
    },
    beatMs - (performance.now() % beatMs),
  )
}

/** Joins pieces that come faster than readers need them; one that comes after a while goes out at once, as the first does. */
export function paced(emit: (text: string) => void) {
  let held = ''
  let last = Number.NEGATIVE_INFINITY
  const flush = () => {
    waiting.delete(flush)
    if (!held) return
    const text = held
    held = ''
    last = performance.now()
    emit(text)
  }
  return {
    push(text: string) {
      held += text
      if (!held) return
      if (performance.now() - last >= beatMs) flush()
      else atNextBeat(flush)
    },
    flush,
  }
}
