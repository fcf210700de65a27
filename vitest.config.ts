import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    globalSetup: ['tests/support/global-setup.ts'],
    include: ['tests/**/*.spec.ts'],
    // Needs a Postgres with the real extensions: run by `.ci/run` with `npm test -- tests/native` and NATIVE=1.
    exclude: process.env.NATIVE ? [] : ['tests/native/**'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // One stack serves all files; two at a time keep both cores busy without starving the stack.
    maxWorkers: 2,
    reporters: process.env.REPORT ? ['default', ['json', { outputFile: process.env.REPORT }]] : ['default'],
  },
})
