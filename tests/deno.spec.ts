import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const entities: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }

// Pure modules of the functions and of the local stack run in Deno alone; here each `Deno.test` appears as a test of its own.
const files = readdirSync('tests/deno').filter((file) => file.endsWith('.test.ts'))
const outcomes = await Promise.all(files.map(async (file) => ({ file, ...(await runDeno(`tests/deno/${file}`)) })))

describe.each(outcomes)('$file', ({ cases, output, code }) => {
  it('runs to its end', () => {
    expect(cases.length, output).toBeGreaterThan(0)
    expect(code === 0 || cases.some(({ failure }) => failure), output).toBe(true)
  })

  it.each(cases)('$name', ({ failure }) => {
    expect(failure).toBeUndefined()
  })
})

interface Case {
  name: string
  failure?: string
}

/** Runs one file with Deno's JUnit reporter and reads the cases from it. */
function runDeno(file: string): Promise<{ cases: Case[]; output: string; code: number | null }> {
  const child = spawn('npx', ['--no', 'deno', '--', 'test', '-A', '--reporter=junit', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let report = ''
  let output = ''
  child.stdout.on('data', (chunk) => {
    report += chunk
  })
  child.stderr.on('data', (chunk) => {
    output += chunk
  })
  return new Promise((resolve) => {
    child.once('close', (code) => resolve({ cases: readReport(report), output: output + report, code }))
  })
}

function readReport(report: string): Case[] {
  const cases = report.matchAll(/<testcase name="([^"]*)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g)
  return [...cases].map(([, name, body]) => ({
    name: decodeEntities(name!),
    failure: body?.includes('<failure') ? decodeEntities(body) : undefined,
  }))
}

function decodeEntities(text: string): string {
  return text.replace(/&(\w+);|&#x(\w+);/g, (_, name, code) =>
    code ? String.fromCodePoint(Number.parseInt(code, 16)) : (entities[name] ?? _),
  )
}
