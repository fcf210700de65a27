-- Ends a runner's turn, by compare-and-set on its lease: the first terminal state wins, the loser is
-- told. outcome: {status, finish_reason, usage, cost_micro_usd, route_id, provider_request_id, error,
-- retry_after_seconds, refused, trace, prefix_hash, prompt_tokens_estimated, outgrown}. A retry with finish_reason handed_over
-- is a planned hand-over: it costs no attempt, and the next claim goes on after what is written.
-- Runs as its owner: runners reach no table.
create function private.finish_generation(generation_id uuid, attempt integer, lease_token uuid, outcome jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  target   public.generations;
  topic    text;
  lease    private.generation_leases;
  status   text := finish_generation.outcome ->> 'status';
  planned  boolean := coalesce(finish_generation.outcome ->> 'finish_reason' = 'handed_over', false);
  failure  jsonb := case when not planned then nullif(finish_generation.outcome -> 'error', 'null') end;
  delay    interval := '0'::interval;
  tried    private.generation_attempts;
  ended    jsonb;
begin
  if status is null or status not in ('completed', 'failed', 'cancelled', 'retry') then
    raise exception 'outcome status % is not completed, failed, cancelled or retry', status;
  end if;
  select g.* into target from public.generations as g where g.id = finish_generation.generation_id;
  topic := private.hold_topic(target.conversation_id);
  select l.* into lease
  from private.generation_leases as l
  where l.generation_id = finish_generation.generation_id
  for update;
  if not found
    or lease.lease_token is distinct from finish_generation.lease_token
    or lease.attempt is distinct from finish_generation.attempt
  then
    return jsonb_build_object('status', 'lost_lease');
  end if;

  if status = 'retry' then
    status := case
      when lease.cancel_requested then 'cancelled'
      when planned then 'handed_over'
      when lease.attempt >= target.max_attempts then 'failed'
      else 'retry'
    end;
  end if;

  update private.generation_attempts as a
  set finished_at = clock_timestamp(),
    outcome = status,
    usage = case
      when finish_generation.outcome ? 'usage' then nullif(finish_generation.outcome -> 'usage', 'null')
      else lease.usage
    end,
    cost_micro_usd = (finish_generation.outcome ->> 'cost_micro_usd')::bigint,
    price_version = null,
    route_id = private.known_route((finish_generation.outcome ->> 'route_id')::bigint, a.route_id),
    provider_request_id = left(finish_generation.outcome ->> 'provider_request_id', 200),
    error = failure,
    trace = private.fit_trace(finish_generation.outcome -> 'trace'),
    prefix_hash = substring(finish_generation.outcome ->> 'prefix_hash' from '^[0-9a-f]{64}$'),
    prompt_tokens_estimated = substring(finish_generation.outcome ->> 'prompt_tokens_estimated' from '^[0-9]{1,9}$')::integer
  where a.generation_id = target.id and a.attempt = lease.attempt and a.call = lease.call
  returning a.* into tried;
  if status = 'completed' and not (tried.usage ->> 'estimated')::boolean then
    perform private.learn_tokens(tried.route_id, tried.prompt_tokens_estimated, (tried.usage ->> 'prompt_tokens')::integer);
  end if;

  if finish_generation.outcome ? 'refused' then
    perform private.refuse_messages(
      target.conversation_id,
      array(select r.id::uuid from jsonb_array_elements_text(finish_generation.outcome -> 'refused') as r (id))
    );
  end if;
  if status in ('completed', 'failed', 'cancelled') then
    ended := private.end_generation(
      target.id, topic, status,
      finish_reason => coalesce(
        finish_generation.outcome ->> 'finish_reason', case when status = 'cancelled' then 'cancelled' end
      ),
      error => case when status = 'failed' then coalesce(failure, jsonb_build_object('code', 'failed')) end
    );
    if status = 'completed' then
      perform private.request_summary(target.conversation_id, finish_generation.outcome ->> 'outgrown');
    end if;
    return ended;
  end if;

  if status = 'retry' then
    delay := coalesce(
      case
        when finish_generation.outcome ->> 'retry_after_seconds' is not null then
          make_interval(secs => least((finish_generation.outcome ->> 'retry_after_seconds')::double precision, 3600))
      end,
      private.backoff(lease.attempt, random())
    );
  end if;
  update private.generation_leases as l
  set lease_token = null, lease_until = null, handed_over = planned, available_at = clock_timestamp() + delay
  where l.generation_id = target.id;
  update public.generations as g set status = 'queued' where g.id = target.id;
  perform private.postpone_job(target.job_id, delay, failure);
  return jsonb_build_object('status', 'queued');
end;
$$;

create function service.finish_generation(generation_id uuid, attempt integer, lease_token uuid, outcome jsonb)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.finish_generation(
    finish_generation.generation_id, finish_generation.attempt, finish_generation.lease_token, finish_generation.outcome
  );
$$;

revoke all on function
  private.finish_generation(uuid, integer, uuid, jsonb), service.finish_generation(uuid, integer, uuid, jsonb)
  from public, anon, authenticated, service_role;
grant execute on function
  private.finish_generation(uuid, integer, uuid, jsonb), service.finish_generation(uuid, integer, uuid, jsonb)
  to service_role;
comment on function service.finish_generation(uuid, integer, uuid, jsonb) is
'Ends a runner''s turn with {status: completed | failed | cancelled | retry, finish_reason, usage, cost_micro_usd, route_id, '
'provider_request_id, error: {code, detail, retryable}, retry_after_seconds, refused (ids of messages that moderation empties), trace, prefix_hash, prompt_tokens_estimated, '
'outgrown (the message up to which a summary is wanted)}; usage null: none, absent: as told with the last append; retry with finish_reason handed_over is a '
'planned hand-over. Answers {status, message, usage} with the state that the '
'generation has now (queued after a retry), or {status: lost_lease}, and then nothing changed.';
