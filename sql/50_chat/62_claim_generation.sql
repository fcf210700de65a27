-- Claims a generation for 30 seconds, by compare-and-set on its lease. Null: it has ended, somebody
-- else writes it, or it waits for its retry. Inline and queued runs come through here alike.
-- Runs as its owner: runners reach no table.
create function private.claim_generation(generation_id uuid)
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
  started  timestamptz;
  taken_over boolean;
  continued boolean;
begin
  select g.* into target from public.generations as g where g.id = claim_generation.generation_id;
  topic := private.hold_topic(target.conversation_id);
  select l.* into lease
  from private.generation_leases as l
  where l.generation_id = claim_generation.generation_id
  for update;
  if not found then
    return null;
  end if;

  started := clock_timestamp();
  taken_over := lease.lease_token is not null;
  continued := lease.handed_over and not taken_over;
  if (taken_over and lease.lease_until > started) or (not taken_over and lease.available_at > started) then
    return null;
  end if;
  if lease.cancel_requested then
    perform private.end_generation(target.id, topic, 'cancelled', 'cancelled');
    return null;
  end if;
  if not continued and lease.attempt >= target.max_attempts then
    perform private.end_generation(
      target.id, topic, 'failed',
      error => jsonb_build_object('code', 'attempts_exhausted', 'detail', 'No attempt came to an end.', 'retryable', true)
    );
    return null;
  end if;

  if taken_over then
    update private.generation_attempts as a
    set finished_at = started, outcome = 'lost', usage = coalesce(lease.usage, a.usage)
    where a.generation_id = target.id and a.finished_at is null;
  end if;
  update private.generation_leases as l
  set attempt = case when continued then l.attempt else l.attempt + 1 end,
    call = case when continued then l.call + 1 else 1 end,
    last_seq = case when continued then l.last_seq else 0 end,
    broadcast_seq = case when continued then l.broadcast_seq else 0 end,
    usage = null,
    lease_token = gen_random_uuid(),
    lease_until = started + interval '30 seconds',
    handed_over = false
  where l.generation_id = target.id
  returning l.* into lease;
  insert into private.generation_attempts (generation_id, attempt, call, started_at)
  values (target.id, lease.attempt, lease.call, started);
  update public.generations as g
  set status = 'running', attempt = lease.attempt, started_at = coalesce(g.started_at, started)
  where g.id = target.id
  returning g.* into target;
  update public.jobs as j
  set status = 'active', attempts = lease.attempt, started_at = coalesce(j.started_at, started)
  where j.id = target.job_id and j.status in ('waiting', 'active');

  if lease.attempt > 1 and not continued then
    perform private.send_event(
      topic, 'generation.reset',
      jsonb_build_object('generation_id', target.id, 'message_id', target.message_id, 'attempt', lease.attempt)
    );
  end if;
  perform private.send_event(
    topic, 'generation.processing',
    jsonb_build_object('generation_id', target.id, 'message_id', target.message_id, 'attempt', lease.attempt)
  );

  return jsonb_build_object(
    'generation_id', target.id,
    'attempt', lease.attempt,
    'lease_token', lease.lease_token,
    'lease_seconds', 30,
    'conversation_id', target.conversation_id,
    'message_id', target.message_id,
    'next_seq', lease.last_seq + 1,
    'partial', coalesce(
      (
        select string_agg(c.text, '' order by c.seq)
        from public.generation_chunks as c
        where c.generation_id = target.id and c.attempt = lease.attempt
      ),
      ''
    ),
    'model', target.model_id,
    'settings', target.settings,
    'spent_micro_usd', private.spent_on(target.id),
    'spent_tokens', private.tokens_spent_on(target.id),
    'prompt', private.prompt_material(target.id)
  ) || private.budget_of(target.id) || private.usable_routes(target.model_id);
end;
$$;

create function service.claim_generation(generation_id uuid)
returns jsonb
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.claim_generation(claim_generation.generation_id);
$$;

revoke all on function private.claim_generation(uuid), service.claim_generation(uuid)
  from public, anon, authenticated, service_role;
grant execute on function private.claim_generation(uuid), service.claim_generation(uuid) to service_role;
comment on function service.claim_generation(uuid) is
'Claims a generation for lease_seconds and returns {generation_id, attempt, lease_token, lease_seconds, conversation_id, '
'message_id, next_seq, partial, settings, routes, skipped, spent_micro_usd, spent_tokens, budget_micro_usd, budget_tokens, '
'prompt}; null when it is not to be had. After a planned hand-over '
'attempt is the same, partial holds what is written and the next chunk is next_seq.';
