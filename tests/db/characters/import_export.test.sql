begin;
select plan(20);
select tests.create_supabase_user('owner');
select tests.create_supabase_user('stranger');
create temporary table seen (name text primary key, id uuid);
create temporary table card (parsed jsonb);
grant select, insert on seen to anon, authenticated, service_role;
grant select on card to service_role;
insert into card values (
  '{
    "character": {
      "name": "Ada", "age": 36, "nickname": "Countess", "greeting": "Good evening.", "alternate_greetings": ["Hello."],
      "tags": ["history"], "visibility": "public", "creator": "Charles", "appearance": {"custom_traits": ["ink on her hands"]}
    },
    "definition": {
      "system_instruction": "You are Ada.", "depth_prompt": {"prompt": "Be brief.", "depth": 4, "role": "system"},
      "card_extras": {"data": {"extensions": {"fav": true}}}
    },
    "lorebook": {
      "name": "Engines", "token_budget": 400, "extras": {"x": 1},
      "entries": [
        {"keys": ["loom"], "content": "Weaves.", "extras": {"id": 7}},
        {"keys": ["\\bengine\\b"], "uses_regex": true, "content": "Computes.", "placement": "at_depth", "depth": 2, "role": "system"}
      ]
    },
    "media": []
  }'
);

set local role service_role;
insert into seen
select 'ada', c.id from card, service.import_character(tests.get_supabase_uid('owner'), card.parsed, 'once') as c;
select is(
  (select c.id from card, service.import_character(tests.get_supabase_uid('owner'), card.parsed, 'once') as c),
  (select id from seen where name = 'ada'),
  'a card imported twice with one key is one character'
);
select is(
  (select c.id
    from card, service.import_character(
      tests.get_supabase_uid('owner'),
      card.parsed || '{"media": [{"path": "elsewhere.png"}]}', 'once'
    ) as c),
  (select id from seen where name = 'ada'),
  'wherever its files were put'
);
select throws_ok(
  $$ select service.import_character(tests.get_supabase_uid('owner'), parsed #- '{lorebook}', 'once') from card $$,
  'PT409', 'idempotency_key_reused', 'another card needs another key'
);
select is(
  service.export_character(tests.get_supabase_uid('owner'), (select id from seen where name = 'ada')) -> 'definition'
    @> (select parsed -> 'definition' from card),
  true, 'the owner gets the definition back'
);
select is(
  service.export_character(tests.get_supabase_uid('owner'), (select id from seen where name = 'ada')) -> 'character'
    @> (select parsed -> 'character' from card),
  true, 'the face'
);
select is(
  service.export_character(tests.get_supabase_uid('owner'), (select id from seen where name = 'ada')) -> 'lorebook'
    @> (select parsed -> 'lorebook' from card),
  true, 'and the lore'
);
select results_eq(
  $$ select e ->> 'content' from seen as s,
      jsonb_array_elements(service.export_character(tests.get_supabase_uid('owner'), s.id) #> '{lorebook,entries}') as e
    where s.name = 'ada' $$,
  $$ values ('Weaves.'), ('Computes.') $$,
  'in its order'
);
insert into seen
select 'copy', c.id
from seen as s,
  service.export_character(tests.get_supabase_uid('owner'), s.id) as e,
  service.import_character(
    tests.get_supabase_uid('owner'),
    jsonb_build_object(
      'character', (e -> 'character') - array['id', 'version', 'created_at', 'updated_at'],
      'definition', e -> 'definition', 'lorebook', e -> 'lorebook', 'media', e -> 'media'
    )
  ) as c
where s.name = 'ada';
select is(
  (select service.export_character(tests.get_supabase_uid('owner'), id) - 'character' from seen where name = 'copy'),
  (select service.export_character(tests.get_supabase_uid('owner'), id) - 'character' from seen where name = 'ada'),
  'what was exported imports as the same'
);
select results_eq(
  $$ select e -> 'is_owner', e -> 'definition', e -> 'lorebook', e #>> '{character,name}'
    from seen as s, service.export_character(tests.get_supabase_uid('stranger'), s.id) as e where s.name = 'ada' $$,
  $$ values ('false'::jsonb, 'null'::jsonb, 'null'::jsonb, 'Ada') $$,
  'a stranger gets the face alone'
);
select unalike(
  service.export_character(null, (select id from seen where name = 'ada'))::text, '%You are Ada%',
  'and so does a visitor'
);

select throws_ok(
  $$ select service.import_character(tests.get_supabase_uid('owner'), '{"character": {"name": "Child", "age": 17}}') $$,
  '23514', null, 'a card of somebody who is no adult is refused'
);
select throws_ok(
  $$ select service.import_character(tests.get_supabase_uid('owner'), '{"character": {"name": "Ageless"}}') $$,
  '23502', null, 'and of somebody without age'
);
select throws_ok(
  $$ select service.import_character(tests.get_supabase_uid('owner'), '{"character": {"name": "X", "age": 20, "owner_id": "y"}}') $$,
  'PT422', 'fields_invalid', 'what is not to be written is refused'
);
select throws_ok(
  $$ select service.import_character(
      tests.get_supabase_uid('owner'), '{"character": {"name": "X", "age": 20}, "lorebook": {"entries": [{"kees": []}]}}'
    ) $$,
  'PT422', 'fields_invalid', 'in entries too'
);
select throws_ok(
  $$ select service.import_character(
      tests.get_supabase_uid('owner'), '{"character": {"name": "X", "age": 20}, "lorebook": {"entries": {}}}'
    ) $$,
  'PT422', 'fields_invalid', 'entries are a list'
);
select throws_ok(
  $$ select service.import_character(
      tests.get_supabase_uid('owner'),
      jsonb_build_object(
        'character', '{"name": "X", "age": 20}'::jsonb,
        'lorebook', jsonb_build_object('entries', (select jsonb_agg('{}'::jsonb) from generate_series(1, 2001)))
      )
    ) $$,
  'PT409', 'lorebook_full', 'of at most two thousand'
);

select tests.become_postgres();
select is(
  (select jsonb_agg(to_jsonb(v) - 'created_at' - 'snapshot') from public.character_versions as v join seen as s on s.id = v.character_id and s.name = 'ada'),
  (select jsonb_build_array(jsonb_build_object('character_id', id, 'version', 1, 'owner_id', tests.get_supabase_uid('owner'))) from seen where name = 'ada'),
  'an import is one version'
);
update public.profiles set status = 'suspended' where id = tests.get_supabase_uid('owner');
set local role service_role;
select throws_ok(
  $$ select service.import_character(tests.get_supabase_uid('owner'), parsed, 'again') from card $$,
  'PT403', 'account_not_active', 'nobody imports for an account that is not active'
);

-- What is not named has the default of its column.
select tests.become_postgres();
insert into public.characters (owner_id, name, age)
select tests.get_supabase_uid('stranger'), n, 30 from unnest(array['Plain', 'Bare']) as n;
select private.write_lorebook(c.owner_id, '{"entries": [{}]}', c.id, null) from public.characters as c where c.name = 'Plain';
insert into public.lorebooks (owner_id, character_id) select c.owner_id, c.id from public.characters as c where c.name = 'Bare';
insert into public.lore_entries (owner_id, lorebook_id)
select b.owner_id, b.id from public.lorebooks as b join public.characters as c on c.id = b.character_id where c.name = 'Bare';
select is(
  (select private.lorebook_content(b.id) from public.lorebooks as b join public.characters as c on c.id = b.character_id where c.name = 'Plain'),
  (select private.lorebook_content(b.id) from public.lorebooks as b join public.characters as c on c.id = b.character_id where c.name = 'Bare'),
  'an empty entry is what an insert without values makes'
);
select lives_ok(
  $$ select private.import_character(tests.get_supabase_uid('stranger'), '{"character": {"name": "X", "age": 20}, "definition": null, "lorebook": null, "media": null}', null) $$,
  'parts that are null are absent'
);

select * from finish();
rollback;
