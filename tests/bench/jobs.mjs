// Jobs through our SQL functions: enqueue, claim and finish one by one and in batches, the same while somebody holds an
// old snapshot, from enqueue to start with a live worker, and BullMQ with the same no-op job where a redis-server is.
//   JOBS_SNAPSHOT_SECONDS (default 120), JOBS_COUNT (default 20000), REDIS_URL or redis-server on PATH or under NATIVE_DIR
import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { bullmq } from './bullmq.mjs'
import { databaseUrl, line, median, quantile, startStack } from './support.mjs'

const count = Number(process.env.JOBS_COUNT ?? 20_000)
const snapshotSeconds = Number(process.env.JOBS_SNAPSHOT_SECONDS ?? 120)
const connections = 16
const batchSize = 500

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack), { max: connections + 2, onnotice() {} })
  try {
    const latencies = await enqueueToStart(sql)
    line('enqueue to start, live worker, median', `${median(latencies).toFixed(1)} ms`, 'goal 50 ms')
    line('enqueue to start, live worker, p95', `${quantile(latencies, 0.95).toFixed(1)} ms`)
    await stopWorkers(sql)

    const one = await oneByOne(sql, count / 4)
    line('enqueue, one by one', `${one.enqueue}/s`, `${connections} connections`)
    line('finish and claim the next, one by one', `${one.work}/s`, 'as a busy worker does; goal 2000/s')
    line('claim one, finish it, in two calls', `${one.calls}/s`)
    const many = await inBatches(sql, count)
    line('enqueue, in batches', `${many.enqueue}/s`, `${batchSize} a call`)
    line('claim and finish, in batches', `${many.work}/s`, 'goal 10000/s')
    await underSnapshot(sql, stack)

    const theirs = await bullmq(count / 4)
    if (!theirs) return console.log('  no redis-server here: BullMQ is not measured')
    for (const [slots, figures] of Object.entries(theirs)) {
      line(
        `BullMQ, ${slots} slots`,
        `${figures.rate}/s`,
        `ours in batches ${(many.work / figures.rate).toFixed(1)} times that`,
      )
      line(
        `BullMQ, ${slots} slots, enqueue to start`,
        `${figures.start.toFixed(1)} ms`,
        `ours ${(median(latencies) / figures.start).toFixed(1)} times that`,
      )
    }
  } finally {
    await sql.end()
    await stack.discard()
  }
}

/** Milliseconds from the job's making to its start by the stack's worker, which is awake after the first. */
async function enqueueToStart(sql) {
  const waits = []
  for (let round = 0; round < 110; round++) {
    const [job] = await sql`
      select private.enqueue_job('erase', null, jsonb_build_object('user_id', gen_random_uuid())) as id`
    for (let row; !row; ) {
      ;[row] = await sql`
        select extract(epoch from started_at - created_at)::float8 * 1000 as ms from public.jobs
        where id = ${job.id} and status = 'completed'`
      if (row && round >= 10) waits.push(row.ms)
      if (!row) await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  return waits
}

/** From here on the figures are the queue's alone: the stack's worker lingers, so its jobs are of a kind it never sees. */
async function stopWorkers(sql) {
  for (let alive = true; alive; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000))
    ;[{ alive }] =
      await sql`select exists (select from private.workers where seen_at > now() - interval '3 seconds') as alive`
  }
  // Seems alive from here on, so nobody is woken.
  await sql`
    insert into private.workers (id, seen_at, swept_at) values (gen_random_uuid(), now() + interval '1 day', now())`
}

/** Runs a step, which answers how many it did, on so many connections until `total` are done; returns how many a second. */
async function rate(sql, lanes, total, makeStep) {
  const started = performance.now()
  let done = 0
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      const lane = await sql.reserve()
      const [worker, step] = [randomUUID(), makeStep()]
      for (let some = 1; done < total && some > 0; done += some) some = await step(lane, worker)
      lane.release()
    }),
  )
  return Math.round(done / ((performance.now() - started) / 1000))
}

const enqueueOne = (lane) => lane`select private.enqueue_job('erase', null, '{}')`.then(() => 1)
const enqueueMany = (lane) =>
  lane`select private.enqueue_jobs('erase', null, array_fill('{}'::jsonb, array[${batchSize}::integer]))`.then(
    () => batchSize,
  )
const claimOne = (lane, worker) => lane`select service.claim_jobs(${worker}, 1) as jobs`.then(([{ jobs }]) => jobs[0])
const workOne = async (lane, worker) => {
  const job = await claimOne(lane, worker)
  if (!job) return 0
  await lane`select service.finish_job(${job.job_id}, ${job.lease_token}, '{"status": "completed"}')`
  return 1
}
/** A worker's slot: each end of a job brings the next one, until the database wants a whole claim, once a second. */
const slot = () => {
  let job
  return async (lane, worker) => {
    job ??= await claimOne(lane, worker)
    if (!job) return 0
    const [{ answer }] = await lane`
      select service.finish_and_claim(${job.job_id}, ${job.lease_token}, '{"status": "completed"}', ${worker}) as answer`
    job = answer.next[0]
    return 1
  }
}
const workMany = async (lane, worker) => {
  const [{ jobs }] = await lane`select service.claim_jobs(${worker}, ${batchSize}) as jobs`
  const outcomes = jobs.map(({ job_id, lease_token }) => ({ job_id, lease_token, outcome: { status: 'completed' } }))
  if (jobs.length > 0) await lane`select service.finish_jobs(${lane.json ? lane.json(outcomes) : outcomes})`
  return jobs.length
}

async function oneByOne(sql, total) {
  const enqueue = await rate(sql, connections, total, () => enqueueOne)
  const work = await rate(sql, connections, total, slot)
  await rate(sql, 2, total, () => enqueueMany)
  return { enqueue, work, calls: await rate(sql, connections, total, () => workOne) }
}

async function inBatches(sql, total) {
  const enqueue = await rate(sql, 2, total, () => enqueueMany)
  return { enqueue, work: await rate(sql, 2, total, () => workMany) }
}

/** The whole round, enqueue and claim and finish, while another session holds a snapshot from before it all. */
async function underSnapshot(sql, stack) {
  const holder = postgres(databaseUrl(stack), { max: 1 })
  await holder`begin isolation level repeatable read`
  await holder`select count(*) from public.jobs`
  const [began, curve] = [performance.now(), []]
  while ((performance.now() - began) / 1000 < snapshotSeconds) {
    const [total, from] = [count / 4, performance.now()]
    await rate(sql, 2, total, () => enqueueMany)
    const work = await rate(sql, 2, total, () => workMany)
    curve.push({ at: Math.round((from - began) / 1000), work })
  }
  await holder`rollback`
  await holder.end()
  for (const { at, work } of thinned(curve, 12)) line(`  snapshot held for ${at} s`, `${work}/s`)
  line('claim and finish at the end of a held snapshot', `${curve.at(-1).work}/s`, 'goal 1000/s')
}

const thinned = (list, most) => list.filter((_, index) => index % Math.ceil(list.length / most) === 0)
