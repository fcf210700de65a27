-- lore_entries: what a lorebook holds. Keys are words, or patterns of a subset that can be matched in
-- linear time; matching is the prompt's, never the database's.

-- Keys of an entry: at most 64 of at most 200 characters, none blank. As patterns they hold no
-- look-around, no back-reference, no atomic group or condition, and repeat nothing more than 99 times.
create function private.is_lore_key_list(keys text[], uses_regex boolean)
returns boolean
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select private.is_text_list(keys, 64, 200)
    and not (
      uses_regex
      and exists (
        -- Doubled backslashes are read away first, then what a backslash escapes.
        select from unnest(keys) as k (key), replace(k.key, '\\', '') as p (pattern)
        where p.pattern ~ '\\([1-9]|k)'
          or regexp_replace(p.pattern, '\\.', '', 'g') ~ '\(\?(<?[=!]|P?>|P=|\()|\{[0-9]*,?[0-9]*[0-9]{3}'
      )
    );
$$;

revoke all on function private.is_lore_key_list(text[], boolean) from public, anon, authenticated, service_role;
grant execute on function private.is_lore_key_list(text[], boolean) to anon, authenticated, service_role;
comment on function private.is_lore_key_list(text[], boolean) is
'True for at most 64 keys of at most 200 characters; as patterns without look-around, back-references and great counts.';

create table public.lore_entries (
  id                  uuid primary key default private.uuid_v7(),
  lorebook_id         uuid not null,
  owner_id            uuid not null default auth.uid(),
  position_in_book    integer not null default 0
    constraint lore_entries_position_range check (position_in_book between 0 and 100000),
  name                text not null default '' constraint lore_entries_name_is_line check (name = '' or private.is_line(name, 200)),
  comment             text not null default '' constraint lore_entries_comment_is_text check (private.is_text(comment, 4000)),
  keys                text[] not null default '{}',
  secondary_keys      text[] not null default '{}',
  is_selective        boolean not null default false,
  is_constant         boolean not null default false,
  is_enabled          boolean not null default true,
  is_case_sensitive   boolean not null default false,
  matches_whole_words boolean,
  uses_regex          boolean not null default false,
  insertion_order     integer not null default 100,
  priority            integer,
  placement           text not null default 'before_char' constraint lore_entries_placement_known
    check (placement in ('before_char', 'after_char', 'at_depth')),
  depth               smallint constraint lore_entries_depth_range check (depth between 0 and 1000),
  role                text constraint lore_entries_role_known check (role in ('system', 'user', 'assistant')),
  content             text not null default '' constraint lore_entries_content_is_text check (private.is_text(content, 32000)),
  extras              jsonb not null default '{}'
    constraint lore_entries_extras_are_small_object check (private.is_json_object(extras, 65536, 64)),
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now(),
  constraint lore_entries_keys_are_keys check (private.is_lore_key_list(keys, uses_regex)),
  constraint lore_entries_secondary_keys_are_keys check (private.is_lore_key_list(secondary_keys, uses_regex)),
  constraint lore_entries_depth_has_depth check (placement <> 'at_depth' or depth is not null),
  constraint lore_entries_owner_is_the_books foreign key (owner_id, lorebook_id)
    references public.lorebooks (owner_id, id) on update cascade on delete cascade
);

create index lore_entries_by_owner on public.lore_entries (owner_id, lorebook_id);
create index lore_entries_by_book on public.lore_entries (lorebook_id, position_in_book, id);
alter table public.lore_entries enable row level security;

revoke all on table public.lore_entries from public, anon, authenticated, service_role;
grant select on table public.lore_entries to authenticated, service_role;
grant insert (
    lorebook_id, position_in_book, name, comment, keys, secondary_keys, is_selective, is_constant, is_enabled,
    is_case_sensitive, matches_whole_words, uses_regex, insertion_order, priority, placement, depth, role, content, extras
  ),
  update (
    position_in_book, name, comment, keys, secondary_keys, is_selective, is_constant, is_enabled,
    is_case_sensitive, matches_whole_words, uses_regex, insertion_order, priority, placement, depth, role, content, extras
  ),
  delete
  on table public.lore_entries to authenticated;
comment on table public.lore_entries is
'Entries of lorebooks, at most 2,000 each, in the order of position_in_book and id.';
comment on column public.lore_entries.keys is 'Any one of them in the text that is searched brings the entry in.';
comment on column public.lore_entries.secondary_keys is 'One of these must occur as well, when is_selective.';
comment on column public.lore_entries.is_constant is 'Told whatever is spoken of, as long as there is room.';
comment on column public.lore_entries.matches_whole_words is 'Null: as the prompt decides.';
comment on column public.lore_entries.insertion_order is 'Lower is told earlier.';
comment on column public.lore_entries.priority is 'When there is no room, the lowest is left out first; null: by insertion_order.';
comment on column public.lore_entries.depth is 'With placement at_depth: so many messages before the newest one.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'lore_entries', 'owner_id', 'delete', 'include');

create policy "owners can read their lore" on public.lore_entries
  for select to authenticated
  using (owner_id = (select auth.uid()));

create policy "active owners can add lore" on public.lore_entries
  for insert to authenticated
  with check (owner_id = (select auth.uid()) and (select private.holds_active_account()));

create policy "owners can change their lore" on public.lore_entries
  for update to authenticated
  using (owner_id = (select auth.uid()) and (select private.is_active_user()))
  with check (owner_id = (select auth.uid()));

create policy "owners can delete their lore" on public.lore_entries
  for delete to authenticated
  using (owner_id = (select auth.uid()));

create trigger _100_updated_at before update on public.lore_entries
  for each row execute function private.tg_lorebooks__updated_at();

insert into private.error_codes (code, status, meaning) values
  ('lorebook_full', 409, 'A lorebook has at most 2,000 entries.');

-- A book holds at most 2,000 entries. It is locked first, so that two inserts at once are counted
-- one after the other. Runs as its owner: clients may not lock.
create function private.tg_lore_entries__limit()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  book uuid;
begin
  for book in select distinct n.lorebook_id from added as n order by n.lorebook_id loop
    perform from public.lorebooks as b where b.id = book for no key update;
    if (select count(*) from public.lore_entries as e where e.lorebook_id = book) > 2000 then
      raise sqlstate 'PT409' using
        message = 'lorebook_full',
        detail  = 'A lorebook has at most 2,000 entries.';
    end if;
  end loop;
  return null;
end;
$$;

create trigger _500_limit after insert on public.lore_entries
  referencing new table as added
  for each statement execute function private.tg_lore_entries__limit();

revoke all on function private.tg_lore_entries__limit() from public, anon, authenticated, service_role;
