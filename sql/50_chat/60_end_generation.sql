-- Ends a generation: the one place where one becomes completed, failed or cancelled. The caller holds
-- the conversation's topic and the lock on the lease. The content of the message is the
-- concatenation of the last attempt's chunks.
create function private.end_generation(
  generation_id uuid,
  topic text,
  status text,
  finish_reason text default null,
  error jsonb default null
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  lease   private.generation_leases;
  ended   public.generations;
  message public.messages;
  tokens  jsonb;
begin
  delete from private.generation_leases as l where l.generation_id = end_generation.generation_id returning l.* into strict lease;

  update private.generation_attempts as a
  set finished_at = clock_timestamp(),
    usage = coalesce(lease.usage, a.usage),
    outcome = coalesce(a.outcome, case when lease.lease_until < clock_timestamp() then 'lost' else end_generation.status end),
    error = coalesce(a.error, end_generation.error)
  where a.generation_id = end_generation.generation_id and a.finished_at is null;

  tokens := private.usage_of(end_generation.generation_id);
  update public.generations as g
  set status = end_generation.status, finish_reason = end_generation.finish_reason,
    usage = tokens, error = end_generation.error, finished_at = clock_timestamp()
  where g.id = end_generation.generation_id
  returning g.* into strict ended;

  update public.messages as m
  set status = end_generation.status, finish_reason = end_generation.finish_reason,
    content = coalesce(
      (
        select string_agg(c.text, '' order by c.seq)
        from public.generation_chunks as c
        where c.generation_id = ended.id and c.attempt = lease.attempt
      ),
      ''
    )
  where m.id = ended.message_id
  returning m.* into strict message;

  perform private.settle_generation(ended.id, ended.message_id);
  perform private.end_job(
    ended.job_id, ended.status,
    result => jsonb_build_object('generation_id', ended.id, 'message_id', ended.message_id),
    error  => ended.error
  );
  perform private.send_event(
    end_generation.topic,
    'generation.' || ended.status,
    case ended.status
      when 'failed' then jsonb_build_object(
        'generation_id', ended.id, 'message_id', ended.message_id, 'message', to_jsonb(message),
        'code', coalesce(ended.error ->> 'code', 'failed'),
        'retryable', coalesce((ended.error ->> 'retryable')::boolean, false)
      )
      else jsonb_build_object('generation_id', ended.id, 'message', to_jsonb(message), 'usage', tokens)
    end
  );
  return jsonb_build_object('status', ended.status, 'message', to_jsonb(message), 'usage', tokens);
end;
$$;

revoke all on function private.end_generation(uuid, text, text, text, jsonb)
  from public, anon, authenticated, service_role;
comment on function private.end_generation(uuid, text, text, text, jsonb) is
'Ends a generation whose lease and topic the caller has locked; answers {status, message, usage}.';
