import type { Project } from './config.ts'
import { databaseUrl, type Stack } from './stack.ts'
import type { Terminal } from './supervisor.ts'

/** Progress with seconds since the start, then one table of addresses and keys. */
export function talkingTerminal(): Terminal {
  return {
    step: (text) => console.log(`${(performance.now() / 1000).toFixed(1).padStart(5)} s  ${text}`),
    child: (name, line) => console.log(`[${name}] ${line}`),
    ready: (stack, project) => console.log(table(stack, project)),
  }
}

/** One line on standard output, when everything serves; what the children say stands in their log files. */
export function quietTerminal(): Terminal {
  return {
    step: () => {},
    child: () => {},
    ready: ({ url }) => console.log(`ready ${url}`),
  }
}

function table(stack: Stack, project: Project): string {
  const rows = [
    ['API', stack.url],
    ['Functions', `${stack.url}/functions/v1`],
    ['Inbox', `${stack.url}/sandbox/inbox`],
    ['Database', databaseUrl(stack, 'postgres')],
    ['Publishable key', stack.keys.publishable],
    ['Secret key', stack.keys.secret],
    ['Data folder', stack.data],
  ] as const
  const lines = rows.map(([name, value]) => `  ${name.padEnd(16)} ${value}`)
  return [
    '',
    `  ${project.project_id} is running. Ctrl-C stops it, \`npm run reset\` deletes its data.`,
    '',
    ...lines,
    '',
  ].join('\n')
}
