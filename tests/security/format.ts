/**
 * How a domain writes down who may do what, in tests/security/<domain>.ts. tests/security-matrix.spec.ts reads the
 * catalogue of the running database and fails for whatever is not mentioned here or differs.
 *
 * export const notes: Domain = {
 *   // Rows to try the verbs on, made as `postgres`. `:owner`, `:stranger`, … are the ids of the people.
 *   scene: `insert into public.notes (owner_id, title) values (:owner, 'mine')`,
 *   tables: {
 *     'public.notes': {
 *       // Privileges of each API role; a role that is not named has none. Columns in brackets.
 *       grants: { authenticated: 'select, delete, insert(title), update(title, body)', service_role: 'select' },
 *       // The row of the scene.
 *       where: 'owner_id = :owner',
 *       // What a client sends to add a row of their own (`:me` is the persona); only where a role may insert.
 *       insert: `insert into public.notes (title) values ('new')`,
 *       // What each persona gets for: select insert update delete of that row.
 *       personas: {
 *         anon: 'denied denied denied denied',
 *         owner: 'yes yes yes yes',
 *         deleted: 'none denied none none',
 *         service_role: 'yes denied denied denied',
 *         rest: 'none yes none none', // everybody who is not named
 *       },
 *     },
 *   },
 *   functions: {
 *     // Every function of public and service, and each of private and admin that an API role may execute:
 *     // the roles that may, or 'nobody'. Names as `schema.name(argument types)`.
 *     'private.is_my_note(uuid)': 'authenticated',
 *     'public.pin_note(uuid)': {
 *       execute: 'authenticated',
 *       call: `select public.pin_note((select id from public.notes limit 1))`,
 *       personas: { owner: 'yes', deleted: 'account_not_active', anon: 'denied', rest: 'note_not_found' },
 *     },
 *   },
 * }
 *
 * Outcomes: `yes` (a row was seen, written; a call returned), `none` (no error, no row), `denied` (42501: no grant, or
 * refused by a policy), else the code of the refusal (`account_not_active`) or the SQLSTATE (`23505`).
 */
export interface Domain {
  /** Statements that make rows, run once as `postgres` before the matrix; separated by `;` at line ends. */
  scene?: string
  tables?: Record<string, Table>
  functions?: Record<string, Roles | Callable>
}

export interface Table {
  grants: Partial<Record<ApiRole, string>>
  where: string
  insert?: string
  /** `set` clause for the update; by default the first column that the role may write is set to itself. */
  set?: string
  personas: Expectations
}

export interface Callable {
  execute: Roles
  call: string
  personas: Expectations
}

export const apiRoles = ['anon', 'authenticated', 'service_role'] as const
export type ApiRole = (typeof apiRoles)[number]
/** API roles separated by spaces, or `nobody`. `supabase_auth_admin` is the role of Auth's hooks. */
export type Roles = string

/**
 * Everybody that every table is tried with. `owner` has blocked `blocked`; `participant` is who a domain's scene makes
 * a member beside the owner; `creator`, `moderator` and `admin` hold that app role; `suspended` and `deleted` still have
 * a token that has not expired. All but `anon` and `service_role` are signed-in users.
 */
export const personas = [
  'anon',
  'owner',
  'stranger',
  'blocked',
  'participant',
  'creator',
  'moderator',
  'admin',
  'suspended',
  'deleted',
  'service_role',
] as const
export type Persona = (typeof personas)[number]
export type Expectations = Partial<Record<Persona | 'rest', string>>
