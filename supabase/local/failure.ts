/** Exit codes of the stack; docs/local-stack.md explains them. */
export const exitCode = {
  failed: 1,
  usage: 2,
  portTaken: 3,
  inUse: 4,
  data: 5,
  migration: 6,
  engine: 7,
} as const

/** A reason to stop that the person at the terminal can act on: printed without a stack trace. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly code: number = exitCode.failed,
    /** What to do about it. */
    readonly remedy?: string,
  ) {
    super(message)
  }
}
