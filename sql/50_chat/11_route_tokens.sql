-- ai_route_tokens: how far the estimate of prompts is from what a route counts. Vocabularies differ,
-- and nobody outside knows them; each answer with a provider's own figures teaches a little.
create table private.ai_route_tokens (
  route_id   bigint primary key references private.ai_routes (id) on delete cascade,
  average    double precision not null default 1
    constraint ai_route_tokens_average_is_bounded check (average between 0.5 and 2),
  factor     double precision not null default 1
    constraint ai_route_tokens_factor_is_bounded check (factor between 0.5 and 2),
  samples    bigint not null default 0,
  changed_at timestamptz not null default clock_timestamp()
);

revoke all on table private.ai_route_tokens from public, anon, authenticated, service_role;
comment on table private.ai_route_tokens is
'Tokens that a route counts for one of our estimate; a route without a row counts as we do.';
comment on column private.ai_route_tokens.average is 'Moving average over answers, the newest with a tenth.';
comment on column private.ai_route_tokens.factor is
'What prompts are made by. It follows the average only when that is more than a twentieth away: each change moves the '
'beginning of long histories, and providers compute those prompts anew.';

-- Learns from one answer: the tokens we had estimated and those that the route counted. Short prompts
-- teach little, since a route adds words of its own to every prompt. When somebody else is teaching
-- the same route at this moment, this answer is left out, so that no answer waits for another.
create function private.learn_tokens(route_id bigint, estimated integer, counted integer)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  known private.ai_route_tokens;
  ratio double precision;
begin
  if learn_tokens.route_id is null or coalesce(learn_tokens.estimated, 0) < 100 or coalesce(learn_tokens.counted, 0) <= 0 then
    return;
  end if;
  select t.* into known
  from private.ai_route_tokens as t
  where t.route_id = learn_tokens.route_id
  for update skip locked;
  if not found then
    insert into private.ai_route_tokens (route_id)
    values (learn_tokens.route_id)
    on conflict on constraint ai_route_tokens_pkey do nothing
    returning * into known;
    if not found then
      return;
    end if;
  end if;
  ratio := least(2, greatest(0.5, learn_tokens.counted::double precision / learn_tokens.estimated));
  known.average := known.average + (ratio - known.average) / least(known.samples + 1, 10);
  if abs(known.average / known.factor - 1) > 0.05 then
    known.factor := known.average;
  end if;
  update private.ai_route_tokens as t
  set average = known.average, factor = known.factor, samples = known.samples + 1, changed_at = clock_timestamp()
  where t.route_id = known.route_id;
end;
$$;

revoke all on function private.learn_tokens(bigint, integer, integer) from public, anon, authenticated, service_role;
