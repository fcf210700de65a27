import { z } from 'zod'

/** One thing that is wrong with a request; `pointer` is a JSON pointer into the body as a URI fragment (RFC 6901). */
export const problemError = z
  .strictObject({ pointer: z.string(), code: z.string(), detail: z.string() })
  .meta({ id: 'ProblemError' })

/** Every answer with status 400 and above (RFC 9457). Branch on `code`; `detail` is for people and may change. */
export const problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    errors: z.array(problemError).optional(),
  })
  .meta({ id: 'Problem' })

export type ProblemError = z.infer<typeof problemError>
export type Problem = z.infer<typeof problem>
