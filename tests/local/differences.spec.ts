import { readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

/** Ids of the rows of the README's table of differences, `diff-<topic>-<n>`. */
const rows = [...readFileSync('README.md', 'utf8').matchAll(/^\| (diff-[a-z]+-\d+) \|/gm)].map(([, id]) => id!)

/** Ids that begin the title of a test. */
const tested = readdirSync('tests', { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.spec.ts'))
  .flatMap((file) => [
    ...readFileSync(`tests/${file}`, 'utf8').matchAll(
      /\b(?:it|test)(?:\.\w+(?:\(.*?\))?)?\(\s*['"`](diff-[a-z]+-\d+)/g,
    ),
  ])
  .map(([, id]) => id!)

it('every line of the table of differences has its test', () => {
  expect(rows.length).toBeGreaterThan(0)
  expect(rows.filter((id) => !tested.includes(id))).toEqual([])
})

it('every tested difference stands in the table, once', () => {
  expect(tested.filter((id) => !rows.includes(id))).toEqual([])
  expect(rows).toEqual([...new Set(rows)])
})
