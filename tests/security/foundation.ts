import type { Domain } from './format.ts'

const everybody = 'anon authenticated service_role'

export const foundation: Domain = {
  functions: {
    'private.uuid_v7(timestamp with time zone)': everybody,
    'private.is_line(text, integer)': everybody,
    'private.is_text(text, integer)': everybody,
    'private.is_json_object(jsonb, integer, integer)': everybody,
    'private.is_language_tag(text)': everybody,
    'service.missing_functions(text[])': 'service_role',
  },
}
