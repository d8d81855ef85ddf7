-- lapse.explained: how the server would do a statement whose parameters it does not know.
--
-- In: the statement, the types of its parameters and values for them, both as SQL lists, and settings
-- ('name=value', as pg_proc.proconfig has them) to plan it under. Out: the generic plan, as JSON and for
-- people. Raises whatever keeps the statement from being planned, and 55P03 where a table stays locked.
--
-- Nothing is executed, so this works in a read-only transaction and on a standby. All of it happens in a
-- subtransaction that ends by an error of its own: settings go back, locks go, whatever happens. The
-- prepared statement is no transaction's, so it is deallocated by hand on every way out. The planner's
-- own settings begin as this session's were when it began: what somebody set by hand since then is
-- nothing that a run would have.

create or replace function lapse.explained(
    p_query    text,
    p_types    text,
    p_values   text,
    p_settings text[],
    out plan   jsonb,
    out lines  text
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
declare
    c_done    constant text := 'LP999';
    v_name    text := 'pglapse_' || replace(gen_random_uuid()::text, '-', '');
    v_setting text;
    v_line    text;
begin
    begin
        perform set_config(s.name, s.reset_val, true)
           from pg_settings as s
          where s.category like 'Query Tuning%' and s.name not like 'jit%' and s.setting is distinct from s.reset_val;
        foreach v_setting in array p_settings || array['plan_cache_mode=force_generic_plan', 'lock_timeout=1s'] loop
            -- Not to be changed in a function with rights of its own, and no plan hangs on them.
            if split_part(v_setting, '=', 1) not in ('role', 'session_authorization') then
                perform set_config(split_part(v_setting, '=', 1), substr(v_setting, strpos(v_setting, '=') + 1), true);
            end if;
        end loop;

        execute format('prepare %I (%s) as %s', v_name, p_types, p_query);
        execute format('explain (verbose, format json) execute %I (%s)', v_name, p_values) into plan;
        for v_line in execute format('explain (costs off) execute %I (%s)', v_name, p_values) loop
            lines := concat_ws(chr(10), lines, v_line);
        end loop;
        raise exception using errcode = c_done;
    exception
        when query_canceled or assert_failure or others then
            if exists (select from pg_prepared_statements as s where s.name = v_name) then
                execute format('deallocate %I', v_name);
            end if;
            if sqlstate <> c_done then
                raise;
            end if;
    end;
end;
$$;

comment on function lapse.explained(text, text, text, text[]) is
    'Internal: the generic plan of a statement under given settings; executes nothing and leaves nothing behind.';
