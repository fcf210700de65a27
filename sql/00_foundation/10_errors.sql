-- The vocabulary of refusals. A refusal is `raise sqlstate 'PTxyz' using message = '<code>'`;
-- the Data API answers HTTP xyz with that code as `message`. Every code raised in sql/ stands
-- here, and every code is named by at least one test. Codes never change their meaning.
create table private.error_codes (
  code    text primary key constraint error_codes_code_is_snake_case check (code ~ '^[a-z][a-z0-9_]+$'),
  status  smallint not null constraint error_codes_status_is_http check (status between 400 and 599),
  meaning text not null
);

revoke all on table private.error_codes from public, anon, authenticated, service_role;
comment on table private.error_codes is
'Every code a refusal may carry in `message`, with its HTTP status and what it means to a client.';

-- foundation
insert into private.error_codes (code, status, meaning) values
  ('idempotency_key_invalid', 422, 'An idempotency key is 1 to 255 characters.'),
  ('idempotency_key_reused', 409, 'The key was used before with a different request body.'),
  ('project_url_invalid', 422, 'The project URL is not an absolute http or https origin.');

-- identity
insert into private.error_codes (code, status, meaning) values
  ('sign_in_required', 401, 'The call needs a signed-in user.'),
  ('account_not_active', 403, 'The account is suspended, banned or deleted.'),
  ('admin_role_required', 403, 'The call needs the app role admin.'),
  ('role_unknown', 422, 'The app role is not one of admin, moderator, creator.'),
  ('account_status_unknown', 422, 'An account is set to active or suspended.'),
  ('user_not_found', 404, 'There is no such user, or the caller may not see them.'),
  ('username_unavailable', 409, 'The username is taken, was used before by somebody else, or is reserved.'),
  ('username_changed_too_often', 429, 'The username was changed three times within thirty days.');

-- documents
insert into private.error_codes (code, status, meaning) values
  ('document_not_found', 404, 'There is no such document among the caller''s own.'),
  ('document_version_conflict', 409, 'The document was changed since the version that the caller read.');

-- account
insert into private.error_codes (code, status, meaning) values
  ('account_not_deleted', 409, 'Only an account that was deleted can be erased.');
