-- What ended answers used, from the rows that their calls of providers left.

-- Provider and its name of the model, as receipts show it.
create function private.route_label(route_id bigint)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (select r.provider || '/' || r.provider_model from private.ai_routes as r where r.id = route_label.route_id);
end;
$$;

-- Settles the hold of a generation that ends: its attempts count, and the calls that failed before the first
-- word but may have been charged for. The caller holds its lease, or it is being deleted.
create function private.settle_generation(generation_id uuid, message_id uuid)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  hold private.usage_holds := private.take_hold(settle_generation.generation_id);
  used private.usage_sum;
begin
  if hold.id is null then
    return;
  end if;
  select
    count(*), sum((c.usage ->> 'prompt_tokens')::bigint), coalesce(sum((c.usage ->> 'cached_tokens')::bigint), 0),
    sum((c.usage ->> 'completion_tokens')::bigint), sum(c.cost_micro_usd),
    (array_agg(c.price_version order by c.at desc))[1], private.route_label((array_agg(c.route_id order by c.at desc))[1]),
    bool_or(coalesce((c.usage ->> 'estimated')::boolean, false))
  into used
  from (
    select a.usage, a.cost_micro_usd, a.price_version, a.route_id, a.started_at as at
    from private.generation_attempts as a
    where a.generation_id = settle_generation.generation_id and a.usage is not null
    union all
    select m.usage, m.cost_micro_usd, m.price_version, m.route_id, m.created_at
    from private.model_calls as m
    where m.generation_id = settle_generation.generation_id and m.usage is not null
  ) as c;
  perform private.book_usage(hold, used, 'answer', settle_generation.message_id);
end;
$$;

-- Settles the hold of a completion that ends. One that was lost with its function, and told of no call, is
-- taken to have used all that was held: somebody may have been paid for it.
create function private.settle_completion(completion_id uuid, kind text, is_lost boolean default false)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  hold private.usage_holds := private.take_hold(settle_completion.completion_id);
  used private.usage_sum;
begin
  if hold.id is null then
    return;
  end if;
  select
    count(*), sum((c.usage ->> 'prompt_tokens')::bigint), coalesce(sum((c.usage ->> 'cached_tokens')::bigint), 0),
    sum((c.usage ->> 'completion_tokens')::bigint), sum(c.cost_micro_usd),
    (array_agg(c.price_version order by c.id desc))[1], private.route_label((array_agg(c.route_id order by c.id desc))[1]),
    bool_or(coalesce((c.usage ->> 'estimated')::boolean, false))
  into used
  from private.model_calls as c
  where c.completion_id = settle_completion.completion_id and c.usage is not null;
  if settle_completion.is_lost and used.calls = 0 then
    used := row(1, hold.prompt_tokens, 0, hold.tokens - hold.prompt_tokens, hold.micro_usd, null, null, true);
  end if;
  perform private.book_usage(hold, used, settle_completion.kind);
end;
$$;

-- A generation that goes with its conversation before it has ended is settled by what it used until now;
-- before its rows go, since they say what that is. Runs as its owner, like the deletions that cascade here.
create function private.tg_generations__settle()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.settle_generation(old.id, old.message_id);
  return old;
end;
$$;

create trigger _400_settle before delete on public.generations
  for each row when (old.status in ('queued', 'running'))
  execute function private.tg_generations__settle();

revoke all on function
  private.route_label(bigint), private.settle_generation(uuid, uuid), private.settle_completion(uuid, text, boolean),
  private.tg_generations__settle()
  from public, anon, authenticated, service_role;
