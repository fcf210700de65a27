-- character_search: what search looks at, one narrow row per public character. Apart from the
-- characters, so that changing one's greeting touches no index of search, and since private ones have
-- no row at all.
create extension if not exists pg_trgm with schema extensions;
create extension if not exists unaccent with schema extensions;

-- Text as search compares it: lower case, without accents. Immutable by promise, so that the same
-- text gives the same rows: the rules of unaccent change with a major version only.
create function private.search_text(value text)
returns text
language sql
immutable
parallel safe
security invoker
set search_path = ''
as $$
  select lower(extensions.unaccent('extensions.unaccent'::regdictionary, value));
$$;

revoke all on function private.search_text(text) from public, anon, authenticated, service_role;

create table private.character_search (
  character_id uuid primary key references public.characters (id) on delete cascade,
  owner_id     uuid not null references public.profiles (id) on delete cascade,
  is_mature    boolean not null,
  tags         text[] not null,
  name         text not null,
  words        tsvector not null,
  document     tsvector not null
);

-- Kept beside the row: a page of search may look at thousands.
alter table private.character_search alter column document set storage main;

create index character_search_by_name on private.character_search (name, character_id);
create index character_search_by_owner on private.character_search (owner_id);
-- One index for text and tags, which finds rows that have both without reading those that have one.
-- Without fastupdate: characters are found far more often than they change.
create index character_search_matches on private.character_search
  using gin (document, tags, words, name extensions.gin_trgm_ops) with (fastupdate = off);

revoke all on table private.character_search from public, anon, authenticated, service_role;
comment on table private.character_search is 'What search looks at, one row per public character; written by a trigger.';
comment on column private.character_search.words is 'Words of the name and the nickname.';
comment on column private.character_search.document is 'Words of everything that search looks at.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('private', 'character_search', 'owner_id', 'delete', 'exclude');

-- What search looks at of a character: words of any language, none of them cut to a stem.
create function private.search_row(subject public.characters)
returns private.character_search
language plpgsql
immutable
security invoker
set search_path = ''
as $$
declare
  name  constant text := private.search_text(subject.name);
  words constant tsvector := to_tsvector('simple', name || ' ' || private.search_text(subject.nickname));
  rest  constant text := private.search_text(concat_ws(
    ' ', subject.tagline, subject.occupation, array_to_string(subject.tags || subject.hobbies, ' '), subject.description
  ));
begin
  return (
    subject.id, subject.owner_id, subject.is_mature, subject.tags, name, strip(words),
    strip(words || to_tsvector('simple', rest))
  )::private.character_search;
end;
$$;

-- Runs as its owner: the table is nobody's to write.
create function private.tg_characters__search()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if new.visibility <> 'public' or coalesce(new.hidden_at, new.deleted_at) is not null then
    delete from private.character_search as s where s.character_id = new.id;
    return null;
  end if;

  insert into private.character_search select r.* from private.search_row(new) as r
  on conflict on constraint character_search_pkey do update
  set is_mature = excluded.is_mature, tags = excluded.tags, name = excluded.name, words = excluded.words,
    document = excluded.document;
  return null;
end;
$$;

create trigger _700_search_insert after insert on public.characters
  for each row when (new.visibility = 'public')
  execute function private.tg_characters__search();

create trigger _700_search_update
  after update of name, nickname, tagline, description, tags, occupation, hobbies, visibility, is_mature, hidden_at, deleted_at
  on public.characters
  for each row when (old.visibility = 'public' or new.visibility = 'public')
  execute function private.tg_characters__search();

revoke all on function private.search_row(public.characters), private.tg_characters__search()
  from public, anon, authenticated, service_role;
