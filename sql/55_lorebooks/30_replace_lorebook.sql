-- Writing a whole lorebook at once, as files and editors have it.

-- Puts a book in the place of the one that the character or the conversation has.
create function private.write_lorebook(owner_id uuid, lorebook jsonb, character_id uuid, conversation_id uuid)
returns public.lorebooks
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  entry_fields constant text[] := array[
    'position_in_book', 'name', 'comment', 'keys', 'secondary_keys', 'is_selective', 'is_constant', 'is_enabled',
    'is_case_sensitive', 'matches_whole_words', 'uses_regex', 'insertion_order', 'priority', 'placement', 'depth',
    'role', 'content', 'extras'
  ];
  -- What the columns have when they are not named; a test compares the two.
  entry_defaults constant jsonb := '{
    "name": "", "comment": "", "keys": [], "secondary_keys": [], "is_selective": false, "is_constant": false,
    "is_enabled": true, "is_case_sensitive": false, "uses_regex": false, "insertion_order": 100,
    "placement": "before_char", "content": "", "extras": {}
  }'::jsonb;
  entries jsonb := coalesce(write_lorebook.lorebook -> 'entries', '[]');
  book    public.lorebooks;
begin
  perform private.require_fields(
    write_lorebook.lorebook,
    array['name', 'description', 'scan_depth', 'token_budget', 'is_recursive', 'extras', 'entries']
  );
  if jsonb_typeof(entries) <> 'array' then
    raise sqlstate 'PT422' using message = 'fields_invalid', detail = 'entries must be a list.';
  end if;
  -- Before any work: a file may hold very many.
  if jsonb_array_length(entries) > 2000 then
    raise sqlstate 'PT409' using
      message = 'lorebook_full',
      detail  = 'A lorebook has at most 2,000 entries.';
  end if;
  perform private.require_fields(e.entry, entry_fields) from jsonb_array_elements(entries) as e (entry);

  delete from public.lorebooks as b
  where b.character_id = write_lorebook.character_id or b.conversation_id = write_lorebook.conversation_id;
  insert into public.lorebooks (owner_id, character_id, conversation_id)
  values (write_lorebook.owner_id, write_lorebook.character_id, write_lorebook.conversation_id)
  returning * into book;
  book := jsonb_populate_record(book, write_lorebook.lorebook - 'entries');
  update public.lorebooks as b
  set name = book.name, description = book.description, scan_depth = book.scan_depth,
    token_budget = book.token_budget, is_recursive = book.is_recursive, extras = book.extras
  where b.id = book.id
  returning b.* into strict book;

  insert into public.lore_entries (
    lorebook_id, owner_id, position_in_book, name, comment, keys, secondary_keys, is_selective, is_constant,
    is_enabled, is_case_sensitive, matches_whole_words, uses_regex, insertion_order, priority, placement, depth, role,
    content, extras
  )
  select
    book.id, book.owner_id, coalesce(n.position_in_book, e.position - 1), n.name, n.comment, n.keys, n.secondary_keys,
    n.is_selective, n.is_constant, n.is_enabled, n.is_case_sensitive, n.matches_whole_words, n.uses_regex,
    n.insertion_order, n.priority, n.placement, n.depth, n.role, n.content, n.extras
  from jsonb_array_elements(entries) with ordinality as e (entry, position),
    jsonb_populate_record(null::public.lore_entries, entry_defaults || e.entry) as n
  order by e.position;
  return book;
end;
$$;

-- A book as its file has it: its columns, and its entries in order.
create function private.lorebook_content(lorebook_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select to_jsonb(b) - array['id', 'owner_id', 'character_id', 'conversation_id', 'created_at', 'updated_at']
      || jsonb_build_object(
        'entries',
        coalesce(
          (
            select jsonb_agg(
              to_jsonb(e) - array['id', 'lorebook_id', 'owner_id', 'created_at', 'updated_at']
              order by e.position_in_book, e.id
            )
            from public.lore_entries as e
            where e.lorebook_id = b.id
          ),
          '[]'
        )
      )
    from public.lorebooks as b
    where b.id = lorebook_content.lorebook_id
  );
end;
$$;

-- Runs as its owner, since it locks; what the caller owns is compared here.
create function private.replace_lorebook(lorebook jsonb, character_id uuid, conversation_id uuid)
returns public.lorebooks
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
begin
  if num_nonnulls(replace_lorebook.character_id, replace_lorebook.conversation_id) <> 1 then
    raise sqlstate 'PT422' using
      message = 'lorebook_place_invalid',
      detail  = 'A lorebook belongs to a character or to a conversation.';
  end if;

  -- Locked, so that two at once leave one of the two books whole.
  perform from public.characters as c
  where c.id = replace_lorebook.character_id and c.owner_id = caller and c.deleted_at is null
  for no key update;
  if replace_lorebook.character_id is not null and not found then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'You have no character with this id.';
  end if;
  perform from public.conversations as c
  where c.id = replace_lorebook.conversation_id and c.owner_id = caller and c.deleted_at is null
  for no key update;
  if replace_lorebook.conversation_id is not null and not found then
    raise sqlstate 'PT404' using
      message = 'conversation_not_found',
      detail  = 'You own no conversation with this id.';
  end if;
  return private.write_lorebook(
    caller, replace_lorebook.lorebook, replace_lorebook.character_id, replace_lorebook.conversation_id
  );
end;
$$;

create function public.replace_lorebook(
  lorebook jsonb,
  character_id uuid default null,
  conversation_id uuid default null
)
returns public.lorebooks
language sql
volatile
security invoker
set search_path = ''
as $$
  select b.*
  from private.replace_lorebook(
    replace_lorebook.lorebook, replace_lorebook.character_id, replace_lorebook.conversation_id
  ) as b;
$$;

revoke all on function
  private.write_lorebook(uuid, jsonb, uuid, uuid), private.lorebook_content(uuid),
  private.replace_lorebook(jsonb, uuid, uuid), public.replace_lorebook(jsonb, uuid, uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.replace_lorebook(jsonb, uuid, uuid), public.replace_lorebook(jsonb, uuid, uuid)
  to authenticated;
comment on function public.replace_lorebook(jsonb, uuid, uuid) is
'Puts a lorebook {name, description, scan_depth, token_budget, is_recursive, extras, entries: [columns of lore_entries]} in the '
'place of the one that a character or a conversation of one''s own has, and returns it. Raises PT404 character_not_found, '
'PT404 conversation_not_found, PT409 lorebook_full, PT422 fields_invalid, PT422 lorebook_place_invalid.';

insert into private.error_codes (code, status, meaning) values
  ('lorebook_place_invalid', 422, 'A lorebook belongs to exactly one character or one conversation.');
