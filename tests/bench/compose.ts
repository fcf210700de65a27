// Composes a prompt as a function does, in Deno, and prints the CPU time of each run in milliseconds, as JSON.
import process from 'node:process'
import { budgetOf } from '../../functions/_shared/prompt/budget.ts'
import { composePrompt } from '../../functions/_shared/prompt/compose.ts'
import type { LoreEntry, PromptMaterial } from '../../functions/_shared/prompt/material.ts'

const words = 'the captain looks at the harbour and counts the lights of the ships that came home '
const entries: LoreEntry[] = Array.from({ length: 500 }, (_, position) => ({
  id: crypto.randomUUID(),
  position,
  keys:
    position % 25 === 1
      ? [`\\bkey${position}\\b`, `(the|a) (place|town)s? ${position}`, `person[ -]${position}`]
      : [`key${position}`, `place ${position}`, `person${position}`],
  secondary_keys: position % 5 === 0 ? ['harbour'] : [],
  is_selective: position % 5 === 0,
  is_constant: position % 50 === 0,
  is_enabled: true,
  is_case_sensitive: false,
  matches_whole_words: position % 2 === 0,
  uses_regex: position % 25 === 1,
  insertion_order: position,
  priority: position % 7,
  placement: position % 3 === 0 ? 'after_char' : 'before_char',
  depth: null,
  role: null,
  content: `What {{char}} knows of key${position}: ${words.repeat(2)}`,
}))

const material: PromptMaterial = {
  character: {
    name: 'Mira',
    description: words.repeat(10),
    personality: words.repeat(10),
    backstory: words.repeat(20),
    example_dialogue: `<START>\n${words.repeat(10)}`,
    depth_prompt: { prompt: words, depth: 4, role: 'system' },
  },
  user: { name: 'Sam' },
  messages: Array.from({ length: 2000 }, (_, index) => ({
    id: crypto.randomUUID(),
    role: index % 2 === 0 ? 'assistant' : 'user',
    content: `${words.repeat(4)} key${index}`,
  })),
  is_whole: false,
  lorebooks: [{ id: 'b', source: 'character', scan_depth: 8, token_budget: null, is_recursive: true, entries }],
}

const budget = budgetOf({ context_window: 128_000, max_output: 8192 } as never, {})
const runs: number[] = []
for (let run = 0; run < 60; run += 1) {
  const before = process.cpuUsage()
  composePrompt(material, budget)
  const { user, system } = process.cpuUsage(before)
  runs.push((user + system) / 1000)
}
console.log(JSON.stringify(runs))
