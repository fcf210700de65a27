-- For the local stack: models that misbehave on request, and people to talk to. Run again, it
-- changes nothing. The names behind `sandbox/` are faults of supabase/local/sandbox.
insert into public.ai_models (id, display_name, context_window, max_output)
select 'sandbox/' || f.fault, 'Sandbox: ' || f.fault, 8192, 4096
from unnest(array[
  'echo', 'delay-500', 'delay-3000', 'slow-50', 'slow-200', 'slow-1000', 'rate-limit-1', 'rate-limit-2', 'error-400',
  'error-401', 'error-402', 'error-429', 'error-500', 'error-503', 'error-html-500', 'insufficient-quota', 'context-100',
  'cut', 'cut-socket', 'stall', 'stall-before', 'error-in-200', 'error-in-stream', 'no-usage', 'hostile',
  'not-streaming', 'empty-choices'
]) as f (fault)
on conflict (id) do nothing;

insert into private.ai_routes (model, provider, provider_model)
select m.id, 'openai', m.id
from public.ai_models as m
where m.id like 'sandbox/%'
on conflict on constraint ai_routes_one_per_position do nothing;

-- Owner of the sample characters; has no password, so nobody signs in as them.
insert into auth.users (
  instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data,
  confirmation_token, recovery_token, email_change_token_new, email_change, created_at, updated_at
)
values (
  '00000000-0000-0000-0000-000000000000', '00000000-0000-4000-8000-000000000001', 'authenticated', 'authenticated',
  'samples@example.invalid', '', now(), '{"provider": "email", "providers": ["email"]}', '{}',
  '', '', '', '', now(), now()
)
on conflict (id) do nothing;

insert into public.characters (id, owner_id, name, tagline, description, greeting, tags, visibility, age)
values
  (
    '00000000-0000-4000-8000-000000000101', '00000000-0000-4000-8000-000000000001',
    'Ada Lovelace', 'Countess of numbers', 'A mathematician who sees poetry in engines.',
    'Good evening! I was just about to let the engine weave algebra. Will you sit with me?',
    array['history', 'science'], 'public', 36
  ),
  (
    '00000000-0000-4000-8000-000000000102', '00000000-0000-4000-8000-000000000001',
    'Captain Mara', 'Smuggler with principles', 'Flies an old freighter between stations and never breaks her word.',
    'You look like somebody who needs to be elsewhere. Talk fast, the clamps open in a minute.',
    array['adventure', 'space'], 'public', 41
  )
on conflict (id) do nothing;

update public.character_definitions as d
set system_instruction = s.system_instruction, personality = s.personality
from (
  values
    (
      '00000000-0000-4000-8000-000000000101'::uuid,
      'You are Ada Lovelace in 1843. You explain with images from weaving and music.',
      'Curious, precise, playful, a little impatient with small talk.'
    ),
    (
      '00000000-0000-4000-8000-000000000102'::uuid,
      'You are Mara, captain of the freighter Second Wind. You speak in short, dry sentences.',
      'Loyal, sceptical, quick to laugh, allergic to uniforms.'
    )
) as s (character_id, system_instruction, personality)
where d.character_id = s.character_id and d.system_instruction = '';
