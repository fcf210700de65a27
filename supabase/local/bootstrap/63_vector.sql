-- A stand-in for pgvector: exact search only. Product SQL that uses it runs unchanged on the real one. Idempotent.
do $$
begin
  if to_regtype('extensions.vector') is null then
    create domain extensions.vector as real[];
    create function extensions.vector_dims(real[]) returns integer
      language sql immutable strict parallel safe as 'select coalesce(array_length($1, 1), 0)';
    create function extensions.cosine_distance(a real[], b real[]) returns double precision
      language plpgsql immutable strict parallel safe as $f$
      declare
        result double precision;
      begin
        if array_length(a, 1) is distinct from array_length(b, 1) then
          raise exception 'different vector dimensions % and %', array_length(a, 1), array_length(b, 1)
            using errcode = '22000';
        end if;
        select 1 - sum(x * y) / nullif(sqrt(sum(x * x)) * sqrt(sum(y * y)), 0) into result
        from (select x::double precision, y::double precision from unnest(a, b) as u (x, y)) as pairs;
        return coalesce(result, 'NaN');
      end
      $f$;
    create operator extensions.<=> (
      leftarg = real[], rightarg = real[], function = extensions.cosine_distance, commutator = operator(extensions.<=>)
    );
  end if;
end
$$;
grant usage on type extensions.vector to postgres, anon, authenticated, service_role;
