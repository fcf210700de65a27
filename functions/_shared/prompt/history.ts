/** What is known of a branch when its beginning has to go; indexes count from the oldest message. */
export interface Branch {
  /** Tokens of each message. */
  costs: number[]
  /** Whether a message is the character's: a history begins better with what somebody asked. */
  isAnswer: boolean[]
  /** Whether it begins with the first message of the conversation. */
  isWhole: boolean
  /** Where the history of the answer before began. */
  previous: number | null
  /** The first message that the summary does not tell. */
  summarised: number | null
}

export interface Cut {
  /** First message of the history. */
  start: number
  /** Last message that a new summary should tell, before there is no room for it; null: none is needed. */
  outgrown: number | null
}

/** Full, and how much is kept after a cut: so one comes only once in a while, and between two the beginning stands still. */
const nearlyFull = 0.8
const keptAfterCut = 0.6
/** A beginning that leaves more room than this unused comes from a smaller model. */
const leastKept = 0.3

/**
 * Chooses where the history begins. The newest message always stays. While everything fits nothing goes; then the
 * beginning stays where the answer before had it, or right after what the summary tells, as long as the rest fits.
 */
export function cutHistory(branch: Branch, room: number): Cut {
  const { costs, isWhole, previous, summarised } = branch
  const rest = suffixSums(costs)
  const total = rest[0] ?? 0
  const reach = isWhole ? room : Math.min(room, total)
  const fresh = freshStart(branch, rest, keptAfterCut * reach)
  const serves = (start: number | null) =>
    start !== null && start < costs.length && rest[start]! <= room && rest[start]! >= leastKept * reach

  let start = fresh
  if (isWhole && total <= room) start = 0
  else if (serves(previous) && previous! >= (summarised ?? 0)) start = previous!
  else if (serves(summarised)) start = summarised!

  const untold = rest[Math.max(start, summarised ?? 0)] ?? 0
  const ahead = untold > nearlyFull * room ? Math.max(start, fresh) : start
  // One message is no story.
  const outgrown = ahead - 1 > (summarised ?? 0) ? ahead - 1 : null
  return { start, outgrown }
}

function freshStart({ costs, isAnswer }: Branch, rest: number[], limit: number): number {
  const newest = Math.max(0, costs.length - 1)
  let start = newest
  while (start > 0 && rest[start - 1]! <= limit) start -= 1
  return isAnswer[start] && start < newest ? start + 1 : start
}

function suffixSums(costs: number[]): number[] {
  const rest = new Array<number>(costs.length)
  let sum = 0
  for (let index = costs.length - 1; index >= 0; index -= 1) {
    sum += costs[index]!
    rest[index] = sum
  }
  return rest
}
