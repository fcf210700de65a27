// send_message, each in a transaction of its own as the Data API runs it, from sixteen connections, while no worker makes
// answers on the same cores; beside it the smallest transaction that writes: the price of a commit here.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { databaseUrl, line, signUp, startConversation, startStack } from './support.mjs'

const connections = 16
const each = 100

export default async function run() {
  const stack = await startStack()
  const sql = postgres(databaseUrl(stack), { max: connections, onnotice() {} })
  try {
    // An answer is on its way until somebody makes it, so each message is the first of its conversation.
    const people = await Promise.all(
      Array.from({ length: connections }, async () => {
        const person = await signUp(stack)
        await sql`select admin.set_plan(${person.id}, 'enterprise')`
        const first = await startConversation(person)
        const [{ character }] =
          await sql`select character_id as character from public.conversations where id = ${first}`
        return { id: person.id, talks: await startMany(sql, person.id, character) }
      }),
    )
    await sql`create table public.commits (id bigint generated always as identity primary key, said text)`

    const { worker } = JSON.parse(readFileSync(join(stack.data, 'children.json'), 'utf8'))
    process.kill(worker, 'SIGSTOP')
    const bare = await rate(people, () => sql`insert into public.commits (said) values ('How are you today?')`)
    const sent = await rate(people, ({ id }, conversation) =>
      as(sql, id, `select public.send_message('${conversation}', 'How are you today?')`),
    )
    process.kill(worker, 'SIGCONT')
    line('send_message', `${sent}/s`, `${connections} connections, goal 500/s`)
    line('one insert and its commit', `${bare}/s`, `send_message is ${(bare / sent).toFixed(1)} times as long`)
  } finally {
    await sql.end()
    await stack.discard()
  }
}

async function startMany(sql, person, character) {
  const talks = []
  while (talks.length < each + 10) {
    const results = await as(sql, person, `select (public.start_conversation('${character}')).id`)
    talks.push(results.at(-1)[0].id)
  }
  return talks
}

/** One call as this person, in one round trip. */
const as = (sql, person, statement) =>
  sql.unsafe(`set local role authenticated;
    select set_config('request.jwt.claims', '${JSON.stringify({ sub: person, role: 'authenticated' })}', true);
    ${statement}`)

/** Calls a second, one connection for each person; their first ten warm it up. */
async function rate(people, call) {
  const callAll = (from, to) =>
    Promise.all(
      people.map(async (person) => {
        for (const talk of person.talks.slice(from, to)) await call(person, talk)
      }),
    )
  await callAll(0, 10)
  const started = performance.now()
  await callAll(10, 10 + each)
  return Math.round((people.length * each) / ((performance.now() - started) / 1000))
}
