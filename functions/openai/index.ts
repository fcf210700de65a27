import { liveEnv } from '../_shared/env.ts'
import { createApp } from './app.ts'

export default { fetch: createApp(liveEnv()).fetch }
