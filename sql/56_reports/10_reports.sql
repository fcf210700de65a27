-- reports: what people tell moderators about. The table is the reporter's side of it; what moderators
-- see and decide stands apart.
create table public.reports (
  id          uuid primary key default private.uuid_v7(),
  reporter_id uuid references public.profiles (id) on delete set null,
  kind        text not null constraint reports_kind_known check (kind in ('character', 'message')),
  subject_id  uuid not null,
  reason      text not null constraint reports_reason_known check (
    reason in ('minor', 'sexual', 'hate', 'harassment', 'violence', 'self_harm', 'illegal', 'spam', 'impersonation', 'other')
  ),
  detail      text not null default '' constraint reports_detail_is_text check (private.is_text(detail, 2000)),
  status      text not null default 'open' constraint reports_status_known check (status in ('open', 'dismissed', 'upheld')),
  created_at  timestamptz not null default now(),
  resolved_at timestamptz,
  constraint reports_resolved_at_set check ((resolved_at is null) = (status = 'open'))
);

-- Reporting twice is one report, until it is resolved.
create unique index reports_one_open_per_person on public.reports (reporter_id, kind, subject_id) where status = 'open';
create index reports_by_reporter on public.reports (reporter_id, id);
create index reports_by_status on public.reports (status, id);
create index reports_by_subject on public.reports (subject_id, id);
alter table public.reports enable row level security;

revoke all on table public.reports from public, anon, authenticated, service_role;
grant select on table public.reports to authenticated, service_role;
comment on table public.reports is
'What people reported to moderators; each reads their own. Made by rpc report_content, resolved by rpc resolve_report.';
comment on column public.reports.subject_id is 'Id of the character or message; no foreign key, since a report outlives it.';
comment on column public.reports.status is 'open; dismissed: nothing was wrong; upheld: moderators agreed.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export)
values ('public', 'reports', 'reporter_id', 'detach', 'include');

create policy "people can read their reports" on public.reports
  for select to authenticated
  using (reporter_id = (select auth.uid()));

-- What was reported, as it was then: who made it cannot take it back. Only moderators see it.
create table private.report_files (
  report_id   uuid primary key references public.reports (id) on delete cascade,
  accused_id  uuid references public.profiles (id) on delete set null,
  evidence    jsonb,
  resolved_by uuid references public.profiles (id) on delete set null,
  note        text not null default '' constraint report_files_note_is_text check (private.is_text(note, 2000))
);

create index report_files_by_accused on private.report_files (accused_id, report_id);
create index report_files_by_moderator on private.report_files (resolved_by);

revoke all on table private.report_files from public, anon, authenticated, service_role;
comment on table private.report_files is 'The moderators'' side of a report.';
comment on column private.report_files.accused_id is 'Who made what was reported; null for the answer of a model to nobody''s character.';
comment on column private.report_files.evidence is 'What was reported, as it was; null half a year after the report was resolved.';

insert into private.owned_data (schema_name, table_name, owner_column, on_delete, on_export) values
  ('private', 'report_files', 'accused_id', 'detach', 'exclude'),
  ('private', 'report_files', 'resolved_by', 'detach', 'exclude');

-- Takes a person's name from the reports that they made or resolved, at the end of their account. What
-- is held against them stays until it is resolved.
create function private.detach_user_from_reports(user_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  update public.reports as r set reporter_id = null where r.reporter_id = detach_user_from_reports.user_id;
  update private.report_files as f set resolved_by = null where f.resolved_by = detach_user_from_reports.user_id;
end;
$$;

revoke all on function private.detach_user_from_reports(uuid) from public, anon, authenticated, service_role;
comment on function private.detach_user_from_reports(uuid) is 'Takes a person''s name from the reports that they made or resolved.';

-- Evidence of what is long resolved is kept no longer.
create function private.prune_report_evidence(at timestamptz default now())
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  with pruned as (
    update private.report_files as f
    set evidence = null, accused_id = null
    from public.reports as r
    where r.id = f.report_id and r.resolved_at < prune_report_evidence.at - interval '180 days' and f.evidence is not null
    returning 1
  )
  select count(*) from pruned;
$$;

revoke all on function private.prune_report_evidence(timestamptz) from public, anon, authenticated, service_role;
comment on function private.prune_report_evidence(timestamptz) is
'Drops the evidence of reports that were resolved half a year ago; returns how many.';

select cron.schedule('prune-report-evidence', '37 3 * * *', 'select private.prune_report_evidence()');
