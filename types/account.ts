import { z } from 'zod'
import { id, type RouteDescription } from './common.ts'

export const accountDeletion = z
  .object({ status: z.literal('deleted'), job_id: id.nullable() })
  .meta({ id: 'AccountDeletion' })

export const accountRoutes: RouteDescription[] = [
  {
    method: 'delete',
    path: '/account',
    summary: 'Delete my account',
    description:
      'The profile, the sessions and everything owned are gone when this answers; the job removes files and the sign-in ' +
      'itself. Messages in shared conversations stay, without a name. Asking twice gives the same job.',
    access: 'user',
    responses: { 202: { description: 'Deleted for everybody; the job finishes the rest.', content: accountDeletion } },
  },
]
