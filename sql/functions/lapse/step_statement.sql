-- lapse.step_statement: what of a step's text can be planned by itself.
--
-- In: the step. Out: a statement with the parameters $1 limit, $2 cutoff and $3 from, and NULL, where there is none
-- to be found. A step in SQL is one statement as it stands, if it is one; of others it is what stands in the
-- parentheses around the first skip locked, which is how rows are picked in the recommended shape. The arguments' names
-- become parameters. This is reading, not parsing: whatever it makes of a text is only ever planned, and what can't
-- be planned is not proved.

create or replace function lapse.step_statement(p_step regprocedure)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_step  record;
    v_text  text;
    v_place integer;
    v_depth integer := 0;
    v_first integer;
    v_last  integer;
begin
    select p.prosrc, p.proargnames, l.lanname
      into v_step
      from pg_proc as p
      join pg_language as l on l.oid = p.prolang
     where p.oid = p_step;
    v_text := regexp_replace(v_step.prosrc, '--[^\n]*', '', 'g');

    if v_step.lanname <> 'sql' or btrim(v_text, E' \t\r\n;') ~ ';' then
        v_place := strpos(lower(v_text), 'skip locked');
        if v_place = 0 then
            return null;
        end if;
        for v_at in reverse v_place .. 1 loop
            v_depth := v_depth + case substr(v_text, v_at, 1) when ')' then 1 when '(' then -1 else 0 end;
            if v_depth < 0 then
                v_first := v_at + 1;
                exit;
            end if;
        end loop;
        v_depth := 0;
        for v_at in v_place .. length(v_text) loop
            v_depth := v_depth + case substr(v_text, v_at, 1) when '(' then 1 when ')' then -1 else 0 end;
            if v_depth < 0 then
                v_last := v_at - 1;
                exit;
            end if;
        end loop;
        v_text := substr(v_text, v_first, v_last - v_first + 1);
    end if;

    for v_number in 1 .. 3 loop
        if v_step.proargnames[v_number] <> '' then
            v_text := regexp_replace(v_text, '\m' || v_step.proargnames[v_number] || '\M', '$' || v_number, 'g');
        end if;
    end loop;
    return nullif(btrim(v_text, E' \t\r\n;'), '');
end;
$$;

comment on function lapse.step_statement(regprocedure) is
    'Internal: the statement of a step''s text that picks its rows, to be planned by itself; NULL where none is found.';
