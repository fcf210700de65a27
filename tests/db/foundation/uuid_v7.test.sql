begin;
select plan(5);

select matches(
  private.uuid_v7()::text, '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
  'an id carries version 7 and the variant of RFC 9562'
);
select is(
  left(private.uuid_v7('2022-02-22 19:22:22+00')::text, 18), '017f22e2-79b0-7000',
  'the timestamp stands where the example of RFC 9562, appendix A.6, has it'
);
select ok(
  private.uuid_v7('2026-01-01 00:00:00.000001+00') < private.uuid_v7('2026-01-01 00:00:00.000002+00'),
  'ids a microsecond apart sort by time'
);
select ok(
  (
    select bool_and(earlier is null or earlier < id)
    from (
      select id, lag(id) over (order by n) as earlier
      from (select n, private.uuid_v7('2026-01-01'::timestamptz + n * interval '1 microsecond') as id
        from generate_series(1, 5000) as n) as made
    ) as pairs
  ),
  'five thousand ids, one per microsecond, are in order'
);
select is(
  (select count(distinct private.uuid_v7('2026-01-01')) from generate_series(1, 5000)), 5000::bigint,
  'ids of the same moment differ'
);

select * from finish();
rollback;
