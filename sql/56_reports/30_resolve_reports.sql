-- What moderators do: read reports, decide, and take a character out of sight. Admins may as well.

insert into private.error_codes (code, status, meaning) values
  ('moderator_role_required', 403, 'The call needs the app role moderator or admin.'),
  ('report_not_found', 404, 'There is no such report.'),
  ('report_status_unknown', 422, 'Reports are open, dismissed or upheld.'),
  ('report_resolved', 409, 'The report was resolved already, in another way.'),
  ('resolution_invalid', 422, 'A report is dismissed or upheld, with at most 2,000 characters of note.');

-- The caller's id when they moderate, or a refusal.
create function private.require_moderator()
returns uuid
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  perform private.require_active_user();
  if not private.has_role('moderator') and not private.has_role('admin') then
    raise sqlstate 'PT403' using
      message = 'moderator_role_required',
      detail  = 'This call needs the app role moderator or admin.';
  end if;
  return (select auth.uid());
end;
$$;

-- reports: every report with its file, for the dashboard and for moderators.
create view admin.reports
with (security_invoker = true)
as
select
  r.id,
  r.kind,
  r.subject_id,
  r.reason,
  r.detail,
  r.status,
  r.reporter_id,
  f.accused_id,
  f.evidence,
  f.note,
  f.resolved_by,
  r.created_at,
  r.resolved_at,
  (select count(*) from public.reports as o where o.subject_id = r.subject_id) as reports_of_subject,
  (select count(*) from private.report_files as o where o.accused_id = f.accused_id) as reports_of_accused
from public.reports as r
join private.report_files as f on f.report_id = r.id;

revoke all on table admin.reports from public, anon, authenticated, service_role;
comment on view admin.reports is 'Every report with what was reported, who made it and how it ended.';

-- One page of reports, oldest first. Runs as its owner, since files are nobody's to read.
create function private.list_reports(status text, past uuid, page_size integer)
returns setof jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  perform private.require_moderator();
  if list_reports.status not in ('open', 'dismissed', 'upheld') then
    raise sqlstate 'PT422' using
      message = 'report_status_unknown',
      detail  = 'status is open, dismissed or upheld.';
  end if;
  return query
  select to_jsonb(a)
  from (
    select v.*
    from admin.reports as v
    where v.status = coalesce(list_reports.status, 'open')
      and v.id > coalesce(list_reports.past, '00000000-0000-0000-0000-000000000000')
    order by v.id
    limit least(greatest(coalesce(list_reports.page_size, 50), 1), 100)
  ) as a
  order by a.id;
end;
$$;

-- Decides a report. Runs as its owner: reports are written by functions only.
create function private.resolve_report(report_id uuid, outcome text, note text)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.require_moderator();
  filed  public.reports;
begin
  if coalesce(resolve_report.outcome, '') not in ('dismissed', 'upheld')
    or not private.is_text(coalesce(resolve_report.note, ''), 2000)
  then
    raise sqlstate 'PT422' using
      message = 'resolution_invalid',
      detail  = 'outcome is dismissed or upheld; note has at most 2,000 characters.';
  end if;

  -- Two moderators at once: the first decides, the second is told.
  select r.* into filed from public.reports as r where r.id = resolve_report.report_id for update;
  if not found then
    raise sqlstate 'PT404' using message = 'report_not_found', detail = 'There is no report with this id.';
  end if;
  if filed.status = 'open' then
    update public.reports as r
    set status = resolve_report.outcome, resolved_at = clock_timestamp()
    where r.id = filed.id;
    update private.report_files as f
    set resolved_by = caller, note = coalesce(resolve_report.note, '')
    where f.report_id = filed.id;
    perform private.emit_event(
      'report.resolved', filed.id, jsonb_build_object('report_id', filed.id, 'status', resolve_report.outcome)
    );
  elsif filed.status <> resolve_report.outcome then
    raise sqlstate 'PT409' using
      message = 'report_resolved',
      detail  = format('The report is %s already.', filed.status);
  end if;
  return (select to_jsonb(v) from admin.reports as v where v.id = filed.id);
end;
$$;

-- Takes a character out of everybody's sight but its owner's, or brings it back. Conversations with it
-- stay readable and do not go on. Runs as its owner: the column is nobody's to write.
create function private.hide_character(character_id uuid, is_hidden boolean)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform private.require_moderator();
  update public.characters as c
  set hidden_at = case when coalesce(hide_character.is_hidden, true) then coalesce(c.hidden_at, clock_timestamp()) end
  where c.id = hide_character.character_id and c.deleted_at is null;
  if not found then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'There is no character with this id.';
  end if;
end;
$$;

create function public.list_reports(status text default 'open', past uuid default null, page_size integer default 50)
returns setof jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select r from private.list_reports(list_reports.status, list_reports.past, list_reports.page_size) as r;
$$;

create function public.resolve_report(report_id uuid, outcome text, note text default '')
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.resolve_report(resolve_report.report_id, resolve_report.outcome, resolve_report.note);
$$;

create function public.hide_character(character_id uuid, is_hidden boolean default true)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.hide_character(hide_character.character_id, hide_character.is_hidden);
$$;

revoke all on function
  private.require_moderator(),
  private.list_reports(text, uuid, integer), public.list_reports(text, uuid, integer),
  private.resolve_report(uuid, text, text), public.resolve_report(uuid, text, text),
  private.hide_character(uuid, boolean), public.hide_character(uuid, boolean)
  from public, anon, authenticated, service_role;
grant execute on function
  private.list_reports(text, uuid, integer), public.list_reports(text, uuid, integer),
  private.resolve_report(uuid, text, text), public.resolve_report(uuid, text, text),
  private.hide_character(uuid, boolean), public.hide_character(uuid, boolean)
  to authenticated;
comment on function public.list_reports(text, uuid, integer) is
'Moderators only: reports of a status as rows of admin.reports, oldest first, after the id `past`; at most 100. '
'Raises PT403 moderator_role_required, PT422 report_status_unknown.';
comment on function public.resolve_report(uuid, text, text) is
'Moderators only: ends a report as dismissed or upheld; the same again changes nothing. '
'Raises PT403 moderator_role_required, PT404 report_not_found, PT409 report_resolved, PT422 resolution_invalid.';
comment on function public.hide_character(uuid, boolean) is
'Moderators only: takes a character out of everybody''s sight but its owner''s, or brings it back. '
'Raises PT403 moderator_role_required, PT404 character_not_found.';
