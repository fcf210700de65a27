import { deepEqual, equal, ok } from 'node:assert/strict'
import { composePrompt, type PromptMaterial } from '../../functions/_shared/prompt/compose.ts'

const material: PromptMaterial = {
  character: { name: 'Mira', personality: 'Kind to {{user}}.', scenario: 'A boat.', backstory: ' ', unknown: 'x' },
  user: { name: 'Sam' },
  messages: [
    { role: 'user', content: 'Hi {{char}}', name: 'Sam' },
    { role: 'assistant', content: '' },
  ],
}

Deno.test('a prompt has the given sections in a fixed order, with names put in', () => {
  const [system, ...rest] = composePrompt(material)
  const at = (text: string) => system!.content.indexOf(text)
  ok(at('Kind to Sam.') > 0 && at('Kind to Sam.') < at('A boat.') && at('A boat.') < at('# Names'))
  equal(at('# Backstory'), -1)
  equal(at('{{'), -1)
  // What people wrote is theirs, empty messages are refused by providers.
  deepEqual(rest, [{ role: 'user', content: 'Hi {{char}}' }])
})

Deno.test('the same material gives the same prompt, and a new message changes only its end', () => {
  const before = composePrompt(material)
  const after = composePrompt({ ...material, messages: [...material.messages, { role: 'user', content: 'And?' }] })
  deepEqual(after.slice(0, before.length), before)
})

Deno.test('who speaks is said where several people do', () => {
  const messages = [...material.messages, { role: 'user' as const, content: 'Me too', name: 'Ann' }]
  deepEqual(
    composePrompt({ ...material, messages })
      .slice(1)
      .map(({ content }) => content),
    ['Sam: Hi {{char}}', 'Ann: Me too'],
  )
})

Deno.test('a handed-over answer goes on from what is written', () => {
  deepEqual(composePrompt(material, 'Once').at(-1), { role: 'assistant', content: 'Once' })
})

Deno.test('a character deleted meanwhile is no crash', () => {
  ok(composePrompt({ character: null, user: null, messages: [] })[0]!.content.includes('the assistant'))
})
