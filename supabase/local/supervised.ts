import { exists } from './engine.ts'

/** Exit code with which a child asks to be started again at once: function code changed. */
const restartMe = 75
const patience = 60_000

export interface ChildOptions {
  name: string
  script: URL
  args: string[]
  logFile: string
  /** A line the child wrote. */
  onLine(name: string, line: string): void
  onPid(name: string, pid: number | null): void
}

/** Keeps one child process running until it is told to stop. Restarts wait longer each time, up to five seconds. */
export class Child {
  private process: Deno.ChildProcess | null = null
  private stopping = false
  private loop: Promise<void> = Promise.resolve()
  private lastLines: string[] = []

  constructor(private readonly options: ChildOptions) {}

  /** Starts the child; resolves at its first `@ready`, rejects when it dies three times before that. */
  start(): Promise<void> {
    if (!exists(this.options.script.pathname)) {
      this.options.onLine(this.options.name, 'not built yet, skipped')
      return Promise.resolve()
    }
    return new Promise((resolve, reject) => {
      this.loop = this.keep(resolve, reject)
    })
  }

  private async keep(onReady: () => void, onFailure: (error: Error) => void): Promise<void> {
    let delay = 100
    let wasReady = false
    for (let failures = 0; !this.stopping; ) {
      const started = Date.now()
      const code = await this.runOnce(() => {
        wasReady = true
        onReady()
      })
      if (this.stopping) return
      if (code === restartMe) continue
      if (!wasReady && ++failures === 3) {
        onFailure(new Error(`${this.options.name} does not start:\n${this.lastLines.slice(-15).join('\n')}`))
        return
      }
      if (Date.now() - started > 10_000) delay = 100
      this.options.onLine(this.options.name, `ended with code ${code}, starting again in ${delay} ms`)
      await new Promise((resolve) => setTimeout(resolve, delay))
      delay = Math.min(delay * 2, 5_000)
    }
  }

  private async runOnce(onReady: () => void): Promise<number> {
    const { name, script, args } = this.options
    const config = new URL('../../deno.json', import.meta.url).pathname
    const process = new Deno.Command(Deno.execPath(), {
      args: ['run', '-A', '--quiet', '--no-prompt', '--config', config, script.pathname, ...args],
      stdin: 'piped',
      stdout: 'piped',
      stderr: 'piped',
    }).spawn()
    this.process = process
    this.options.onPid(name, process.pid)
    // A child that never gets ready is as good as dead.
    const late = setTimeout(() => this.kill('SIGKILL'), patience)
    const ready = () => {
      clearTimeout(late)
      onReady()
    }
    const [{ code }] = await Promise.all([
      process.status,
      this.read(process.stdout, (line) => (line === '@ready' ? ready() : this.write(line))),
      this.read(process.stderr, (line) => this.write(line)),
    ])
    clearTimeout(late)
    this.process = null
    this.options.onPid(name, null)
    return code
  }

  private write(line: string) {
    this.lastLines = [...this.lastLines.slice(-50), line]
    this.options.onLine(this.options.name, line)
  }

  private async read(stream: ReadableStream<Uint8Array<ArrayBuffer>>, onLine: (line: string) => void): Promise<void> {
    let rest = ''
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      for (const line of lines) onLine(line)
    }
    if (rest) onLine(rest)
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
    this.stopping = true
    this.kill('SIGTERM')
    const insist = setTimeout(() => this.kill('SIGKILL'), 5_000)
    // The pause before a restart is not waited for.
    while (this.process) await Promise.race([this.process.status, this.loop])
    clearTimeout(insist)
  }
}
