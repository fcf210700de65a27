-- profiles: what others see of a person. One row per user, made when they sign up.
create table public.profiles (
  id             uuid primary key references auth.users (id) on delete cascade,
  username       text not null
    constraint profiles_username_unique unique
    constraint profiles_username_shape check (username ~ '^[a-z0-9_]{3,30}$'),
  display_name   text not null constraint profiles_display_name_is_line check (private.is_line(display_name, 50)),
  avatar_path    text not null default 'default/avatar.png',
  bio            text not null default '' constraint profiles_bio_is_text check (private.is_text(bio, 500)),
  status         text not null default 'active'
    constraint profiles_status_known check (status in ('active', 'suspended', 'deleted')),
  status_message text not null default ''
    constraint profiles_status_message_is_line check (status_message = '' or private.is_line(status_message, 140)),
  locale         text not null default 'en' constraint profiles_locale_is_bcp47 check (private.is_language_tag(locale)),
  did            text constraint profiles_did_unique unique,
  last_seen_at   timestamptz,
  created_at     timestamptz not null default now(),
  updated_at     timestamptz not null default now(),
  -- An avatar is the common default or a file in the person's own folder of the bucket `avatars`.
  constraint profiles_avatar_is_own check (
    avatar_path = 'default/avatar.png'
    or (
      starts_with(avatar_path, id::text || '/')
      and char_length(avatar_path) <= 200
      and avatar_path !~ '(\.\.|[^A-Za-z0-9_./-])'
    )
  )
);

alter table public.profiles enable row level security;

revoke all on table public.profiles from public, anon, authenticated, service_role;
grant select on table public.profiles to anon, authenticated, service_role;
grant update (username, display_name, avatar_path, bio, status_message, locale)
  on table public.profiles to authenticated;

comment on table public.profiles is 'What others see of a person; one row per user, made at sign-up.';
comment on column public.profiles.username is
'3 to 30 of a-z, 0-9, _; stored lower case and NFKC. Changing it reserves the old name. '
'Raises PT409 username_unavailable, PT429 username_changed_too_often.';
comment on column public.profiles.avatar_path is 'Path in the public bucket `avatars`: the default or a file in one''s own folder.';
comment on column public.profiles.status is 'active, suspended or deleted; only active profiles are seen by others.';
comment on column public.profiles.status_message is 'A line the person shows beside their name; may be empty.';
comment on column public.profiles.locale is 'BCP 47 language tag in its usual spelling, for example en, de-AT, zh-Hant-TW.';
comment on column public.profiles.did is 'did:web of the project''s host and this profile; null until the project URL is set.';
comment on column public.profiles.last_seen_at is 'When the person last called rpc me, to the minute.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'profiles', 'id', 'cascade', 'include');

-- profile_private: what only its owner reads.
create table public.profile_private (
  id                  uuid primary key references public.profiles (id) on delete cascade,
  mature_confirmed_at timestamptz,
  topic               text not null constraint profile_private_topic_unique unique,
  created_at          timestamptz not null default now()
);

alter table public.profile_private enable row level security;

revoke all on table public.profile_private from public, anon, authenticated, service_role;
grant select on table public.profile_private to authenticated, service_role;

comment on table public.profile_private is 'What only the person reads of their profile.';
comment on column public.profile_private.mature_confirmed_at is 'When the person confirmed to see mature content; null is no.';
comment on column public.profile_private.topic is
'Private Realtime topic of this person, `user:<id>:<nonce>`; read it, never compose it.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'profile_private', 'id', 'cascade', 'include');

create policy "people can read their private profile" on public.profile_private
  for select to authenticated
  using (id = (select auth.uid()));
