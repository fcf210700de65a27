begin;
select plan(31);

select ok(private.is_line('Zoë 👩‍🚀', 50), 'a line may hold any script');
select ok(private.is_line('<script>alert(1)</script>', 50), 'HTML is text like any other');
select ok(private.is_line($$'; drop table profiles; --$$, 50), 'SQL is text like any other');
select ok(private.is_line('😀😀😀', 3), 'length counts characters, not bytes');
select ok(not private.is_line('😀😀😀😀', 3), 'a line over its length is refused');
select ok(not private.is_line('', 50), 'an empty line is refused');
select ok(not private.is_line(' x', 50), 'a line with space around it is refused');
select ok(not private.is_line(e'a\nb', 50), 'a line break is refused in a line');
select ok(not private.is_line(e'a\x1b[31mb', 50), 'an escape character is refused in a line');
select ok(not private.is_line('a' || chr(8238) || 'b', 50), 'a change of direction is refused in a line');
select ok(not private.is_line('a' || chr(8203) || 'b', 50), 'an invisible space is refused in a line');

select ok(not private.is_line('a' || chr(173) || 'b', 50), 'a soft hyphen is refused in a line');
select ok(not private.is_line('a' || chr(1564) || 'b', 50), 'so is the Arabic mark of direction');
select ok(not private.is_line(chr(160) || chr(12288), 50), 'spaces of other scripts alone are no line');
select ok(not private.is_line('x' || chr(8195), 50), 'nor may they stand at its end');
select ok(not private.is_line(chr(12644), 50), 'a letter that shows nothing is refused');
select ok(not private.is_line(chr(10240), 50), 'so is the empty braille pattern');
select ok(not private.is_line(chr(8205) || chr(65039), 50), 'joiners without anything to join are no line');
select ok(private.is_line('می‌خواهم ❤️', 50), 'between letters they belong to the script');

select ok(private.is_text(e'a\tb\r\nc', 50), 'text may have tabs and lines');
select ok(private.is_text('', 50), 'text may be empty');
select ok(not private.is_text(e'a\x07b', 50), 'text may not ring the bell');

select ok(private.is_json_object('{"a": {"b": 1}}', 100, 2), 'an object within its depth passes');
select ok(not private.is_json_object('{"a": {"b": {}}}', 100, 2), 'an object over its depth is refused');
select ok(not private.is_json_object('{"a": [[1]]}', 100, 2), 'arrays count as depth');
select ok(not private.is_json_object('[]', 100, 2), 'an array is no object');
select ok(not private.is_json_object(jsonb_build_object('a', repeat('é', 50)), 100, 2), 'size counts octets, not characters');

-- Each would be gigabytes or hundreds of megabytes as text.
set local statement_timeout = '2s';
create function pg_temp.many(number text) returns jsonb language sql as $$
  select jsonb_build_object('a', jsonb_agg(number::jsonb)) from generate_series(1, 20000);
$$;
select ok(not private.is_json_object(pg_temp.many('1e131071'), 262144, 32), 'many gigantic numbers are refused at once');
select ok(not private.is_json_object(pg_temp.many('0e-16383'), 262144, 32), 'so are many with gigantic fractions');
select ok(not private.is_json_object('{"a": 1e131071}', 1000, 32), 'one of them is as large as its text');
select ok(
  private.is_json_object(
    jsonb_build_object('a', (select jsonb_agg('1.7976931348623157e308'::jsonb) from generate_series(1, 600))), 262144, 32
  ), 'every double is a number like any other'
);

select * from finish();
rollback;
