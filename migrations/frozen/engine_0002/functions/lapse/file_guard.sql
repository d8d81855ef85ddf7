-- lapse.file_guard: what a file must still be, in the one form that the queue keeps.
--
-- In: an object with some of size (bytes), mtime_ns (modification time in nanoseconds since 1970) and
-- etag, or an array of 1 to 32 such alternatives. A member that is null counts as not given. Out:
-- an array of alternatives; NULL when this can't be what a file is. A guard that says nothing
-- is refused too: it would let any file pass and look as if it guarded.

create or replace function lapse.file_guard(p_expected jsonb)
    returns jsonb
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select case when bool_and(a.good) and count(*) between 1 and 32
                then jsonb_agg(jsonb_strip_nulls(a.alternative) order by a.position) end
      from (select e.alternative, e.position,
                   case
                       when jsonb_typeof(e.alternative) <> 'object' then false
                       else jsonb_strip_nulls(e.alternative) <> '{}'
                            and e.alternative - '{size, mtime_ns, etag}'::text[] = '{}'
                            and coalesce(e.alternative -> 'size', 'null') #>> '{}' ~ '^[0-9]{1,18}$' is not false
                            and coalesce(jsonb_typeof(e.alternative -> 'size'), 'null') in ('number', 'null')
                            and coalesce(e.alternative -> 'mtime_ns', 'null') #>> '{}' ~ '^-?[0-9]{1,19}$' is not false
                            and coalesce(jsonb_typeof(e.alternative -> 'mtime_ns'), 'null') in ('number', 'null')
                            and length(coalesce(e.alternative -> 'etag', 'null') #>> '{}') between 1 and 1024 is not false
                            and coalesce(jsonb_typeof(e.alternative -> 'etag'), 'null') in ('string', 'null')
                   end as good
              from jsonb_array_elements(case jsonb_typeof(p_expected)
                                            when 'array' then p_expected
                                            else jsonb_build_array(p_expected)
                                        end) with ordinality as e (alternative, position)) as a
$$;

comment on function lapse.file_guard(jsonb) is
    'Internal: a guard as an array of alternatives; NULL when it is malformed.';
