-- Reporting a character or a message.

insert into private.error_codes (code, status, meaning) values
  ('report_invalid', 422, 'A report names a kind, a reason of the list and at most 2,000 characters of detail.'),
  ('too_many_reports', 429, 'The person reported twenty things within an hour.');

-- What somebody may report of what they see: {accused_id, evidence}, or null. A character behind a
-- block counts as seen, since people block first; a message only to who takes part.
create function private.reportable(kind text, id uuid, reporter uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if reportable.kind = 'character' then
    return (
      select jsonb_build_object('accused_id', c.owner_id, 'evidence', to_jsonb(c))
      from public.characters as c
      where c.id = reportable.id
        and c.deleted_at is null
        and (
          c.visibility <> 'private'
          or exists (
            select from public.conversations as v
            where v.character_id = c.id and private.is_participant(v.id, reportable.reporter)
          )
        )
    );
  end if;
  return (
    select jsonb_build_object(
      'accused_id', coalesce(m.author_id, c.owner_id),
      'evidence', to_jsonb(m) || jsonb_build_object('character_id', c.id, 'character_name', c.name)
    )
    from public.messages as m
    join public.conversations as v on v.id = m.conversation_id
    left join public.characters as c on c.id = v.character_id
    where m.id = reportable.id and m.deleted_at is null and private.is_participant(m.conversation_id, reportable.reporter)
  );
end;
$$;

-- Runs as its owner: reports are written by functions only.
create function private.report_content(kind text, id uuid, reason text, detail text)
returns public.reports
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller uuid := private.hold_active_user();
  what   jsonb;
  filed  public.reports;
begin
  if coalesce(report_content.kind, '') not in ('character', 'message')
    or coalesce(report_content.reason, '') not in (
      'minor', 'sexual', 'hate', 'harassment', 'violence', 'self_harm', 'illegal', 'spam', 'impersonation', 'other'
    )
    or not private.is_text(coalesce(report_content.detail, ''), 2000)
  then
    raise sqlstate 'PT422' using
      message = 'report_invalid',
      detail  = 'kind is character or message; reason is one of minor, sexual, hate, harassment, violence, self_harm, '
        'illegal, spam, impersonation, other; detail has at most 2,000 characters.';
  end if;

  what := private.reportable(report_content.kind, report_content.id, caller);
  if what is null and report_content.kind = 'character' then
    raise sqlstate 'PT404' using
      message = 'character_not_found',
      detail  = 'There is no character with this id that you may see.';
  elsif what is null then
    raise sqlstate 'PT404' using
      message = 'message_not_found',
      detail  = 'There is no message with this id that you may read.';
  end if;

  insert into public.reports (reporter_id, kind, subject_id, reason, detail)
  values (caller, report_content.kind, report_content.id, report_content.reason, coalesce(report_content.detail, ''))
  on conflict do nothing
  returning * into filed;
  if filed.id is null then
    select r.* into strict filed
    from public.reports as r
    where r.reporter_id = caller and r.kind = report_content.kind and r.subject_id = report_content.id and r.status = 'open';
    return filed;
  end if;
  if not (private.take_token('report_content user:' || caller, 20, 20 / 3600.0)).allowed then
    raise sqlstate 'PT429' using
      message = 'too_many_reports',
      detail  = 'You reported twenty things within an hour.',
      hint    = 'Report the others later.';
  end if;
  insert into private.report_files (report_id, accused_id, evidence)
  values (filed.id, (what ->> 'accused_id')::uuid, what -> 'evidence');
  perform private.emit_event(
    'report.created', filed.id, jsonb_build_object('report_id', filed.id, 'kind', filed.kind, 'reason', filed.reason)
  );
  return filed;
end;
$$;

create function public.report_content(kind text, id uuid, reason text, detail text default '')
returns public.reports
language sql
volatile
security invoker
set search_path = ''
as $$
  select r.*
  from private.report_content(report_content.kind, report_content.id, report_content.reason, report_content.detail) as r;
$$;

revoke all on function
  private.reportable(text, uuid, uuid), private.report_content(text, uuid, text, text),
  public.report_content(text, uuid, text, text)
  from public, anon, authenticated, service_role;
grant execute on function private.report_content(text, uuid, text, text), public.report_content(text, uuid, text, text)
  to authenticated;
comment on function public.report_content(text, uuid, text, text) is
'Reports a character or a message (kind) to the moderators, who see it as it is now; reporting it again returns the open '
'report. Raises PT404 character_not_found, PT404 message_not_found, PT422 report_invalid, PT429 too_many_reports.';
