-- Settling: the hold of an ended answer goes, what it used is counted, and a receipt says so, all in the
-- transaction that ends the answer. An answer has one hold, so it is settled once, whoever asks.

-- What an answer used, summed over its calls of providers.
create type private.usage_sum as (
  calls             integer,
  prompt_tokens     bigint,
  cached_tokens     bigint,
  completion_tokens bigint,
  cost_micro_usd    bigint,
  price_version     integer,
  route             text,
  estimated         boolean
);
comment on type private.usage_sum is 'What an answer used, over all its calls of providers; the last one''s route and price version.';

-- Takes the hold of an answer away, with its person's usage locked; a row of nulls when there is none (any more).
create function private.take_hold(answer_id uuid)
returns private.usage_holds
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owner uuid;
  hold  private.usage_holds;
begin
  select h.owner_id into owner
  from private.usage_holds as h
  where h.generation_id = take_hold.answer_id or h.completion_id = take_hold.answer_id;
  if not found then
    return null;
  end if;
  perform from private.owners as o where o.id = owner for no key update;
  delete from private.usage_holds as h
  where h.generation_id = take_hold.answer_id or h.completion_id = take_hold.answer_id
  returning h.* into hold;
  return hold;
end;
$$;

-- Locks the usage of an answer's person without waiting, for those who end many answers in one transaction:
-- false when somebody has it now. True too when there is nothing to settle.
create function private.try_lock_usage(answer_id uuid)
returns boolean
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  owner uuid;
begin
  select h.owner_id into owner
  from private.usage_holds as h
  where h.generation_id = try_lock_usage.answer_id or h.completion_id = try_lock_usage.answer_id;
  if not found then
    return true;
  end if;
  perform from private.owners as o where o.id = owner for no key update skip locked;
  return found;
end;
$$;

-- Counts what came of a hold that was taken, and writes the receipt unless nothing was used. The counters
-- of a deleted account are gone, and stay so.
create function private.book_usage(hold private.usage_holds, used private.usage_sum, kind text, message_id uuid default null)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  person uuid;
begin
  select o.user_id into person from private.owners as o where o.id = hold.owner_id;
  update public.usage_periods as p
  set held_tokens = p.held_tokens - hold.tokens,
    held_micro_usd = p.held_micro_usd - hold.micro_usd,
    prompt_tokens = p.prompt_tokens + coalesce(used.prompt_tokens, 0),
    cached_tokens = p.cached_tokens + coalesce(used.cached_tokens, 0),
    completion_tokens = p.completion_tokens + coalesce(used.completion_tokens, 0),
    cost_micro_usd = p.cost_micro_usd + coalesce(used.cost_micro_usd, 0)
  where p.user_id = person and p.period = date_trunc('month', hold.day)::date;
  if coalesce(used.calls, 0) = 0 then
    return;
  end if;
  update public.usage_daily as d
  set prompt_tokens = d.prompt_tokens + used.prompt_tokens,
    cached_tokens = d.cached_tokens + used.cached_tokens,
    completion_tokens = d.completion_tokens + used.completion_tokens,
    cost_micro_usd = d.cost_micro_usd + coalesce(used.cost_micro_usd, 0)
  where d.user_id = person and d.day = hold.day;
  insert into public.usage_receipts (
    owner_id, kind, generation_id, message_id, completion_id, plan_id, model_id, route, day, calls,
    prompt_tokens, cached_tokens, completion_tokens, price_version, cost_micro_usd, estimated
  ) values (
    hold.owner_id, book_usage.kind, hold.generation_id, book_usage.message_id, hold.completion_id, hold.plan_id, hold.model_id,
    used.route, hold.day, used.calls, used.prompt_tokens, used.cached_tokens, used.completion_tokens,
    used.price_version, used.cost_micro_usd, used.estimated
  );
end;
$$;

revoke all on function
  private.take_hold(uuid), private.try_lock_usage(uuid), private.book_usage(private.usage_holds, private.usage_sum, text, uuid)
  from public, anon, authenticated, service_role;

-- What the end of an account does to usage: the counters go with the rows marked `delete`, receipts stay in the
-- books, and holds of answers that go on in shared conversations stay until those end. The lock first, so that a
-- settlement at the same moment is before or after, and never in a deadlock with it.
create function private.detach_user_from_usage(user_id uuid)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select private.lock_usage(detach_user_from_usage.user_id);
$$;

revoke all on function private.detach_user_from_usage(uuid) from public, anon, authenticated, service_role;
