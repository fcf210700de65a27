import { runChild } from '../child.ts'
import { startGateway } from '../gateway/server.ts'

await runChild(startGateway)
