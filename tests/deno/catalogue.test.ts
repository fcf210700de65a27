import { deepEqual } from 'node:assert/strict'
import { readCatalogue } from '../../functions/_shared/catalogue.ts'

/** A database with a version of the catalogue, and with what it was asked. */
function database(version = 1) {
  const asked: unknown[][] = []
  return {
    asked,
    version,
    plan: 'free',
    call<T>(...question: unknown[]): Promise<T> {
      asked.push(question)
      const { version, plan } = this
      const lists = { models: [{ id: `model of ${version}` }], rules: [{ route: `route of ${version}` }] }
      return Promise.resolve({
        version,
        plan,
        max_model_tier: 0,
        is_active: true,
        ...(question[2] !== version && lists),
      } as T)
    },
  }
}
const told = async (db: ReturnType<typeof database>, user = 'ada') => {
  const { plan, models, rules } = await readCatalogue(db, user)
  return { plan, models: models.map(({ id }) => id), rules: rules.map(({ route }) => route) }
}

Deno.test('the catalogue is sent once for a version, and the plan each time', async () => {
  const db = database()
  const first = await told(db)

  const second = await told(db)
  db.plan = 'pro'
  const third = await told(db, 'ben')

  deepEqual(first, { plan: 'free', models: ['model of 1'], rules: ['route of 1'] })
  deepEqual(second, first)
  deepEqual(third, { ...first, plan: 'pro' })
  deepEqual(db.asked, [
    ['read_catalogue', 'ada', null],
    ['read_catalogue', 'ada', 1],
    ['read_catalogue', 'ben', 1],
  ])
})

Deno.test('another version, a later or an earlier one, replaces what is remembered', async () => {
  const db = database(7)
  await told(db)

  for (const version of [8, 3]) {
    db.version = version
    deepEqual((await told(db)).models, [`model of ${version}`])
    deepEqual((await told(db)).rules, [`route of ${version}`])
  }
})

Deno.test('what one database says is not remembered of another', async () => {
  const other = database(1)
  await told(database(1))

  deepEqual((await told(other)).models, ['model of 1'])

  deepEqual(other.asked, [['read_catalogue', 'ada', null]])
})

Deno.test('an answer that was on its way when a newer one came does not last', async () => {
  const db = database(1)
  const { call } = db
  const late = Promise.withResolvers<void>()
  db.call = async <T>(...question: unknown[]) => {
    const answer = await call.apply(db, question)
    await late.promise
    return answer as T
  }
  const slow = told(db)
  db.call = call
  db.version = 2
  await told(db)
  late.resolve()

  deepEqual((await slow).models, ['model of 1'])
  deepEqual((await told(db)).models, ['model of 2'])
})
