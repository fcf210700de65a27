// BullMQ with a no-op job, on a redis-server of its own.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { median } from './support.mjs'

/** Figures for 5 and 50 slots: jobs a second, and the median from add to start in ms. Null where no Redis is. */
export async function bullmq(total) {
  const redis = await startRedis()
  if (!redis) return null
  const { Queue, Worker } = await import('bullmq')
  const figures = {}
  try {
    for (const slots of [5, 50]) {
      const name = `bench-${slots}`
      const queue = new Queue(name, { connection: redis.connection })
      for (let left = total; left > 0; left -= 1000) {
        await queue.addBulk(Array.from({ length: Math.min(left, 1000) }, () => ({ name: 'no-op', data: {} })))
      }
      const started = performance.now()
      let done = 0
      let onStart = () => {}
      const worker = new Worker(name, async () => onStart(), { connection: redis.connection, concurrency: slots })
      await new Promise((resolve) => worker.on('completed', () => ++done === total && resolve()))
      const rate = Math.round(total / ((performance.now() - started) / 1000))
      const waits = []
      for (let round = 0; round < 100; round++) {
        const began = performance.now()
        const start = new Promise((resolve) => {
          onStart = resolve
        })
        await queue.add('no-op', {})
        await start
        waits.push(performance.now() - began)
      }
      figures[slots] = { rate, start: median(waits) }
      await worker.close()
      await queue.obliterate({ force: true })
      await queue.close()
    }
  } finally {
    await redis.stop()
  }
  return figures
}

/** Redis at REDIS_URL, else a server of our own: from PATH, or from the installation that NATIVE_DIR names. */
async function startRedis() {
  if (process.env.REDIS_URL) {
    const { hostname, port, username, password } = new URL(process.env.REDIS_URL)
    const connection = { host: hostname, port: Number(port || 6379), username, password, maxRetriesPerRequest: null }
    return { connection, stop: async () => {} }
  }
  const native = process.env.NATIVE_DIR
  const inPath = process.env.PATH.split(delimiter).find((folder) => existsSync(join(folder, 'redis-server')))
  const inNative = native && existsSync(join(native, 'usr/bin/redis-server'))
  if (!inPath && !inNative) return null
  const port = await freePort()
  const flags = ['redis-server', '--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
  const command = inPath ? flags : ['chroot', native, ...flags]
  const server = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise((resolve, reject) => {
    server.once('exit', (code) => reject(new Error(`redis-server ended with code ${code}`)))
    server.stdout.on('data', (text) => String(text).includes('Ready to accept connections') && resolve())
  })
  server.removeAllListeners('exit')
  return {
    connection: { host: '127.0.0.1', port, maxRetriesPerRequest: null },
    async stop() {
      const gone = new Promise((resolve) => server.once('exit', resolve))
      server.kill('SIGTERM')
      await gone
    },
  }
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}
