// Prints the closing line of CI: `N passed, N failed` over the vitest reports of a folder; a failed step counts as one more
// failure. Exits 1 when anything failed, and also when no test ran.
//   node scripts/ci-total.mjs FOLDER [FAILED_STEP…]
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const [folder, ...failedSteps] = process.argv.slice(2)
let passed = 0
let failed = failedSteps.length
for (const file of readdirSync(folder)) {
  const report = JSON.parse(readFileSync(join(folder, file), 'utf8'))
  passed += report.numPassedTests
  failed += report.numFailedTests
}
for (const step of failedSteps) console.log(`failed: ${step}`)
console.log(`\n${passed} passed, ${failed} failed`)
process.exit(failed > 0 || passed === 0 ? 1 : 0)
