import { fileURLToPath } from 'node:url'
import { Failure } from './failure.ts'

/** Exit code with which a child asks to be started again at once: function code changed. */
const restartMe = 75
const readyWithin = 60_000

export interface ChildOptions {
  name: string
  script: URL
  args: string[]
  /** A line the child wrote, or one about it. */
  onLine(line: string): void
  onPid(pid: number | null): void
}

/** Keeps one child process running until it is told to stop. Restarts wait longer each time, up to five seconds. */
export class Child {
  private process: Deno.ChildProcess | null = null
  private readonly stopping = new AbortController()
  private loop: Promise<void> = Promise.resolve()
  private lastLines: string[] = []

  constructor(private readonly options: ChildOptions) {}

  /** Resolves at the first `@ready`, rejects when the child dies three times before that. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.loop = this.keep(resolve, reject)
    })
  }

  private async keep(onReady: () => void, onFailure: (error: Error) => void): Promise<void> {
    let delay = 100
    let wasReady = false
    for (let failures = 0; ; ) {
      const started = Date.now()
      const code = await this.runOnce(() => {
        wasReady = true
        onReady()
      })
      if (this.stopping.signal.aborted) return onReady()
      if (code === restartMe) continue
      if (!wasReady && ++failures === 3) {
        return onFailure(new Failure(`${this.options.name} does not start:\n${this.lastLines.slice(-15).join('\n')}`))
      }
      if (Date.now() - started > 10_000) delay = 100
      await this.pause(delay)
      // Ctrl-C reaches the children as well, sometimes before us.
      if (this.stopping.signal.aborted) return onReady()
      this.write(`ended (${code}), starting it again`)
      delay = Math.min(delay * 2, 5_000)
    }
  }

  private async runOnce(onReady: () => void): Promise<number> {
    if (this.stopping.signal.aborted) return 0
    const { script, args } = this.options
    const config = fileURLToPath(new URL('../../deno.json', import.meta.url))
    const process = new Deno.Command(Deno.execPath(), {
      // The flag: a request's signal is aborted when its client leaves, not also after every answer.
      args: [
        'run',
        '-A',
        '--unstable-no-legacy-abort',
        '--quiet',
        '--no-prompt',
        '--config',
        config,
        fileURLToPath(script),
        ...args,
      ],
      stdin: 'piped',
      stdout: 'piped',
      stderr: 'piped',
    }).spawn()
    this.process = process
    this.options.onPid(process.pid)
    // A child that never gets ready is as good as dead.
    const late = setTimeout(() => this.kill('SIGKILL'), readyWithin)
    const ready = () => {
      clearTimeout(late)
      onReady()
    }
    const [{ code }] = await Promise.all([
      process.status,
      readLines(process.stdout, (line) => (line === '@ready' ? ready() : this.write(line))),
      readLines(process.stderr, (line) => this.write(line)),
    ])
    clearTimeout(late)
    this.process = null
    this.options.onPid(null)
    return code
  }

  private write(line: string) {
    this.lastLines = [...this.lastLines.slice(-50), line]
    this.options.onLine(line)
  }

  private pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      setTimeout(resolve, milliseconds)
      this.stopping.signal.addEventListener('abort', () => resolve())
    })
  }

  private kill(signal: Deno.Signal) {
    try {
      this.process?.kill(signal)
    } catch {
      // It has just ended by itself.
    }
  }

  /** Asks the child to finish, and insists after five seconds. */
  async stop(): Promise<void> {
    this.stopping.abort()
    this.kill('SIGTERM')
    const insist = setTimeout(() => this.kill('SIGKILL'), 5_000)
    await this.loop
    clearTimeout(insist)
  }
}

async function readLines(stream: ReadableStream<Uint8Array<ArrayBuffer>>, onLine: (line: string) => void) {
  let rest = ''
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) onLine(line)
  }
  if (rest) onLine(rest)
}
