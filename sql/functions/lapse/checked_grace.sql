-- lapse.checked_grace: how long a file is kept, for each reason.
--
-- In: the grace for all reasons, and those that differ: {"deleted": "1 day", ...}. Out: one for each of deleted,
-- replaced, truncated and ended. LP001 for anything else, and for what is negative, NULL or infinite.

create or replace function lapse.checked_grace(p_grace interval, p_graces jsonb)
    returns jsonb
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_reasons constant text[] := array['deleted', 'replaced', 'truncated', 'ended'];
    v_all     jsonb := '{}';
    v_reason  text;
    v_text    text;
    v_grace   interval;
begin
    if p_graces is not null and jsonb_typeof(p_graces) <> 'object' then
        raise exception 'p_graces is not an object'
            using errcode = 'LP001', hint = 'For example: {"deleted": "1 day", "ended": "72 hours"}.';
    end if;

    select r.name into v_reason from jsonb_object_keys(coalesce(p_graces, '{}')) as r (name) where r.name <> all (c_reasons) limit 1;
    if found then
        raise exception 'there is no reason "%" for which a file is kept', v_reason
            using errcode = 'LP001', hint = 'Reasons are deleted, replaced, truncated and ended.';
    end if;

    foreach v_reason in array c_reasons loop
        v_grace := p_grace;
        v_text := 'p_grace';

        if p_graces ? v_reason then
            v_text := format('the grace for %s', v_reason);
            begin
                v_grace := (p_graces ->> v_reason)::interval;
            exception when others then
                raise exception '% is no interval: %', v_text, sqlerrm
                    using errcode = 'LP001', hint = 'For example: 72 hours.';
            end;
        end if;

        if v_grace is null or v_grace < interval '0' or v_grace > interval '10000 years' then
            raise exception '% can''t be %', v_text, coalesce(v_grace::text, 'NULL')
                using errcode = 'LP001', hint = 'Files are kept for no time (0) or some: 72 hours.';
        end if;

        v_all := v_all || jsonb_build_object(v_reason, v_grace::text);
    end loop;

    return v_all;
end;
$$;

comment on function lapse.checked_grace(interval, jsonb) is
    'Internal: the grace for each reason, or LP001.';
