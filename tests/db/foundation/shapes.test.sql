begin;
select plan(19);

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

select ok(private.is_text(e'a\tb\r\nc', 50), 'text may have tabs and lines');
select ok(private.is_text('', 50), 'text may be empty');
select ok(not private.is_text(e'a\x07b', 50), 'text may not ring the bell');

select ok(private.is_json_object('{"a": {"b": 1}}', 100, 2), 'an object within its depth passes');
select ok(not private.is_json_object('{"a": {"b": {}}}', 100, 2), 'an object over its depth is refused');
select ok(not private.is_json_object('{"a": [[1]]}', 100, 2), 'arrays count as depth');
select ok(not private.is_json_object('[]', 100, 2), 'an array is no object');
select ok(not private.is_json_object(jsonb_build_object('a', repeat('é', 50)), 100, 2), 'size counts octets, not characters');

select * from finish();
rollback;
