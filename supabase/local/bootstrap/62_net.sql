-- pg_net's tables and functions; the platform child sends what is committed. Idempotent.
create schema if not exists net;

create unlogged table if not exists net.http_request_queue (
  id bigserial primary key,
  method text not null check (method in ('GET', 'POST', 'DELETE')),
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);
create unlogged table if not exists net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
create index if not exists _http_response_created_idx on net._http_response (created);

create or replace function net._urlencode(value text) returns text language sql immutable set search_path = '' as $$
  select coalesce(string_agg(
    case when c ~ '^[A-Za-z0-9_.~-]$' then c
      else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') end, '' order by n), '')
  from regexp_split_to_table(value, '') with ordinality as t (c, n)
$$;

create or replace function net._encode_url_with_params(url text, params jsonb) returns text
language sql immutable set search_path = '' as $$
  select case when p.query is null then url
    else url || case when position('?' in url) > 0 then '&' else '?' end || p.query end
  from (select string_agg(net._urlencode(key) || '=' || net._urlencode(value), '&') as query
    from jsonb_each_text(coalesce(params, '{}'))) p
$$;

-- The notification leaves with the commit and is lost with a rollback, like the row.
create or replace function net._enqueue(method text, url text, headers jsonb, body bytea, timeout_milliseconds integer)
returns bigint language sql volatile set search_path = '' as $$
  with queued as (
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values (_enqueue.method, _enqueue.url, _enqueue.headers, _enqueue.body, _enqueue.timeout_milliseconds)
    returning id
  )
  select id from queued, lateral pg_notify('net_http_request_queue', '') as _
$$;

create or replace function net.http_get(
  url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000
) returns bigint language sql volatile strict set search_path = '' as $$
  select net._enqueue('GET', net._encode_url_with_params(http_get.url, http_get.params), http_get.headers, null,
    http_get.timeout_milliseconds)
$$;

create or replace function net.http_delete(
  url text, params jsonb default '{}', headers jsonb default '{}', timeout_milliseconds int default 5000,
  body jsonb default null
) returns bigint language sql volatile set search_path = '' as $$
  select net._enqueue('DELETE', net._encode_url_with_params(http_delete.url, http_delete.params), http_delete.headers,
    convert_to(http_delete.body::text, 'UTF8'), http_delete.timeout_milliseconds)
$$;

create or replace function net.http_post(
  url text, body jsonb default '{}', params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 5000
) returns bigint language plpgsql volatile set search_path = '' as $$
declare
  content_type text := (select value from jsonb_each_text(http_post.headers) where lower(key) = 'content-type' limit 1);
begin
  if content_type is null then
    http_post.headers := coalesce(http_post.headers, '{}') || '{"Content-Type": "application/json"}';
  elsif content_type not like 'application/json%' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  return net._enqueue('POST', net._encode_url_with_params(http_post.url, http_post.params), http_post.headers,
    convert_to(http_post.body::text, 'UTF8'), http_post.timeout_milliseconds);
end
$$;

-- The extension opens its tables to everybody who may use the schema; the API roles may on hosted.
grant usage on schema net to postgres, anon, authenticated, service_role;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
