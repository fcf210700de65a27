-- As on hosted, the real pgmq belongs to postgres, so that migrations make queues in it.
do $$
declare
  statement text;
begin
  for statement in
    select format('alter table %s owner to postgres', oid::regclass) from pg_class
    where relnamespace = 'pgmq'::regnamespace and relkind in ('r', 'p')
    union all
    select format('alter routine %s owner to postgres', oid::regprocedure) from pg_proc
    where pronamespace = 'pgmq'::regnamespace
    union all
    select format('alter type %s owner to postgres', t.oid::regtype) from pg_type t join pg_class c on c.oid = t.typrelid
    where t.typnamespace = 'pgmq'::regnamespace and c.relkind = 'c'
  loop
    execute statement;
  end loop;
  alter schema pgmq owner to postgres;
end
$$;
