import type postgres from 'postgres'

/** A conversation's tree as its rows say, and what must be true of it after whatever people did. */
export interface Message {
  id: string
  parent_id: string | null
  depth: number
  role: 'user' | 'assistant'
  author_id: string | null
  content: string
  status: string
  selected_child_id: string | null
  deleted_at: string | null
  is_gone: boolean
}

export interface Tree {
  messages: Map<string, Message>
  leaf: string | null
}

/** One row of `conversation_branch`. */
export interface Shown {
  id: string
  parent_id: string | null
  content: string
  deleted_at: string | null
  variant_index: number
  variant_count: number
  previous_variant_id: string | null
  next_variant_id: string | null
}

export async function readTree(sql: postgres.Sql, conversation: string): Promise<Tree> {
  const [row] = await sql`
    select c.active_leaf_id as leaf,
      (select coalesce(jsonb_agg(m), '[]') from public.messages as m where m.conversation_id = c.id) as messages
    from public.conversations as c where c.id = ${conversation}`
  return { leaf: row!.leaf, messages: new Map((row!.messages as Message[]).map((message) => [message.id, message])) }
}

/** Children that are not gone, oldest first; of null: the roots. */
export const childrenOf = ({ messages }: Tree, parent: string | null): Message[] =>
  [...messages.values()]
    .filter(({ parent_id, is_gone }) => parent_id === parent && !is_gone)
    .sort((a, b) => (a.id < b.id ? -1 : 1))

/** From the root down to a message. */
export function pathTo({ messages }: Tree, id: string | null): Message[] {
  const path: Message[] = []
  for (let at = id; at !== null; at = messages.get(at)!.parent_id) {
    if (path.length > messages.size) throw new Error(`The way up from ${id} has no end.`)
    path.unshift(messages.get(at)!)
  }
  return path
}

/** Where a branch that goes through a message ends, when each fork goes on as `chosen` says, else with the newest. */
export function endOf(
  tree: Tree,
  from: string | null,
  chosen: (parent: string) => string | null | undefined,
): string | null {
  let at = from
  for (;;) {
    const below = at === null ? [] : childrenOf(tree, at)
    if (below.length === 0) return at
    const wanted = chosen(at!)
    at = (below.find(({ id }) => id === wanted) ?? below.at(-1)!).id
  }
}

/** Everything that is wrong with a tree and with what is shown of it; nothing, as it should be. */
export function faultsOf(tree: Tree, shown: Shown[]): string[] {
  const faults: string[] = []
  const check = (holds: boolean, fault: string) => void (holds || faults.push(fault))
  for (const { id, parent_id, depth, content, deleted_at, is_gone, selected_child_id } of tree.messages.values()) {
    const parent = parent_id === null ? undefined : tree.messages.get(parent_id)
    check(parent_id === null || parent !== undefined, `${id} is an orphan`)
    check(depth === (parent ? parent.depth + 1 : 0), `${id} has the wrong depth`)
    check(!deleted_at || content === '', `${id} was deleted and has a text`)
    check(is_gone === (deleted_at !== null && childrenOf(tree, id).length === 0), `${id} is gone, or is not`)
    const selected = selected_child_id === null ? undefined : tree.messages.get(selected_child_id)
    check(!selected || (selected.parent_id === id && !selected.is_gone), `${id} chose what is no child of it`)
  }

  const path = pathTo(tree, tree.leaf)
  const living = [...tree.messages.values()].filter(({ is_gone }) => !is_gone)
  check((tree.leaf === null) === (living.length === 0), 'something is shown exactly when there is something')
  check(path.at(-1)?.deleted_at === null || path.length === 0, 'the last message that is shown has a text or will have')
  check(endOf(tree, tree.leaf, () => null) === tree.leaf, 'the branch that is shown goes to an end')
  check(
    endOf(tree, path[0]?.id ?? null, (parent) => tree.messages.get(parent)!.selected_child_id) === tree.leaf,
    'the forks lead along the branch that is shown',
  )
  check(shown.length === path.length, 'the branch is shown as a whole')
  for (const [index, { id, parent_id }] of path.entries()) {
    const row = shown[index]
    const variants = childrenOf(tree, parent_id).map((variant) => variant.id)
    const place = variants.indexOf(id)
    check(
      row?.id === id &&
        row.variant_index === place + 1 &&
        row.variant_count === variants.length &&
        row.previous_variant_id === (variants[place - 1] ?? null) &&
        row.next_variant_id === (variants[place + 1] ?? null),
      `${id} is not shown as it is`,
    )
  }
  return faults
}
