-- lapse.check_claim: what a worker asks for makes sense, or LP001.
--
-- In: as of lapse.exchange_files: storages, how many of each, resume points, all side by side. Without
-- storages there may be one limit, which goes for each of them, and no resume points.

create or replace function lapse.check_claim(
    p_storages   text[],
    p_limits     integer[],
    p_after_dues timestamptz[],
    p_after_ids  bigint[]
)
    returns void
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_count integer := coalesce(cardinality(p_storages), 1);
    v_limit integer;
    v_twice text;
begin
    if array_ndims(p_storages) > 1 or array_lower(p_storages, 1) <> 1 or v_count > 1000
       or array_position(p_storages, null) is not null then
        raise exception 'the storages to take files of are NULL, more than 1000 or no simple array'
            using errcode = 'LP001', hint = 'Give their names, for example ''{public, private}''.';
    end if;

    if v_count > 1 then
        select min(n.name) into v_twice
          from (select s.name from unnest(p_storages) as s (name) group by s.name having count(*) > 1) as n;
        if v_twice is not null then
            raise exception 'storage % is asked for twice', left(v_twice, 200)
                using errcode = 'LP001', hint = 'Name each storage once, with one limit.';
        end if;
    end if;

    if cardinality(p_limits) <> v_count or array_ndims(p_limits) > 1 or array_lower(p_limits, 1) <> 1 then
        raise exception 'got % limits for % storages', cardinality(p_limits), v_count
            using errcode = 'LP001', hint = 'Give one limit for each storage, side by side.';
    end if;

    if p_limits is not null then
        foreach v_limit in array p_limits loop
            if v_limit is null or v_limit not between 0 and 10000 then
                raise exception 'can''t hand out % files', coalesce(v_limit::text, 'NULL')
                    using errcode = 'LP001', hint = 'Give limits from 0 to 10000.';
            end if;
        end loop;
    end if;

    if num_nulls(p_after_dues, p_after_ids) <> 2
       and (p_storages is null or num_nulls(p_after_dues, p_after_ids) <> 0
            or cardinality(p_after_dues) <> v_count or cardinality(p_after_ids) <> v_count
            or array_ndims(p_after_dues) > 1 or array_ndims(p_after_ids) > 1
            or array_lower(p_after_dues, 1) <> 1 or array_lower(p_after_ids, 1) <> 1) then
        raise exception 'the resume points don''t match the storages'
            using errcode = 'LP001',
                  hint = 'Give a due time and a number for each storage, as they came with kind next, or NULLs.';
    end if;
end;
$$;

comment on function lapse.check_claim(text[], integer[], timestamptz[], bigint[]) is
    'Internal: refuse storages, limits and resume points that make no sense.';
