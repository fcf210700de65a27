/**
 * pg_cron's schedules: `N seconds`, or five fields of vixie cron, which mean GMT. Day of month may be `$`, the last one.
 */
export type Schedule = { seconds: number } | { matches(minute: Date): boolean }

const months = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const days = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

/** Throws an Error that names the part it cannot read. */
export function parseSchedule(text: string): Schedule {
  const interval = /^\s*(\d{1,2})\s+seconds?\s*$/i.exec(text)
  if (interval) {
    const seconds = Number(interval[1])
    if (seconds < 1 || seconds > 59) throw new Error(`invalid schedule: ${text}`)
    return { seconds }
  }
  const fields = text.trim().split(/\s+/)
  if (fields.length !== 5) throw new Error(`invalid schedule: ${text}`)
  const [minutes, hours, dayOfMonth, month, dayOfWeek] = fields as [string, string, string, string, string]
  const lastDay = dayOfMonth === '$'
  const allowed = {
    minutes: parseField(minutes, 0, 59),
    hours: parseField(hours, 0, 23),
    dayOfMonth: lastDay ? new Set<number>() : parseField(dayOfMonth, 1, 31),
    month: parseField(month, 1, 12, months, 1),
    // 7 is Sunday, too.
    dayOfWeek: new Set([...parseField(dayOfWeek, 0, 7, days, 0)].map((day) => day % 7)),
  }
  // Vixie's rule: with a star at the head of either, both must hold; otherwise one of the two is enough.
  const both = dayOfMonth.startsWith('*') || dayOfWeek.startsWith('*')
  return {
    matches(at) {
      if (!allowed.minutes.has(at.getUTCMinutes()) || !allowed.hours.has(at.getUTCHours())) return false
      if (!allowed.month.has(at.getUTCMonth() + 1)) return false
      const onDay = lastDay ? isLastDay(at) : allowed.dayOfMonth.has(at.getUTCDate())
      const onWeekday = allowed.dayOfWeek.has(at.getUTCDay())
      return both ? onDay && onWeekday : onDay || onWeekday
    },
  }
}

function parseField(text: string, least: number, most: number, names: string[] = [], firstName = 0): Set<number> {
  const values = new Set<number>()
  const number = (word: string) => {
    const named = names.indexOf(word.toLowerCase())
    const value = named >= 0 ? named + firstName : /^\d{1,2}$/.test(word) ? Number(word) : NaN
    if (!(value >= least && value <= most))
      throw new Error(`invalid schedule: ${word} is not between ${least} and ${most}`)
    return value
  }
  for (const part of text.split(',')) {
    const [range, step, more] = part.split('/')
    if (more !== undefined || (step !== undefined && !/^[1-9]\d?$/.test(step)))
      throw new Error(`invalid schedule: ${part}`)
    const [from, to, extra] = range === '*' ? [String(least), String(most)] : range!.split('-')
    if (extra !== undefined) throw new Error(`invalid schedule: ${part}`)
    const first = number(from!)
    // A step needs something to step through: `5/10` alone is refused by cron, too.
    if (step !== undefined && to === undefined) throw new Error(`invalid schedule: ${part}`)
    const last = to === undefined ? first : number(to)
    if (last < first) throw new Error(`invalid schedule: ${part}`)
    for (let value = first; value <= last; value += Number(step ?? 1)) values.add(value)
  }
  return values
}

function isLastDay(at: Date): boolean {
  return new Date(at.getTime() + 86_400_000).getUTCDate() === 1
}
