import type { Hono } from 'hono'
import type { z } from 'zod'
import type { accountDeletion } from '../../types/account.ts'
import { caller, requireUser } from '../_shared/auth.ts'
import type { Env } from '../_shared/env.ts'
import { createService, type Service } from '../_shared/http.ts'
import { limitRate } from '../_shared/limits/middleware.ts'

/** Builds the account API. `env` supplies everything outside this process. */
export function createApp(env: Env): Hono<Service> {
  const app = createService(env, 'account')
  app.use(requireUser(env), limitRate(env))

  /** Deletes the caller's account. Not as the caller: nobody may end sessions and write Auth's tables by their own right. */
  app.delete('/', async (c) => {
    type Deletion = z.infer<typeof accountDeletion>
    const deletion = await env.service.call<Deletion>('begin_account_deletion', caller(c).id)
    return c.json(deletion, 202)
  })

  return app
}
