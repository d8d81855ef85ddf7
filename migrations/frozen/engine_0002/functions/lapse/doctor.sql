-- lapse.doctor: is all well? One line a check, with the command that mends it.
--
-- In: one check by name, or NULL for all (lapse.doctor_checks lists them), and the
-- time to judge by, so that "if nobody comes within the hour" can be asked, too. Out:
-- level ok, warn or fail, what was found, and what to do about it: SQL, a command of
-- pglapse, or words where neither can. Changes nothing, and works in a transaction
-- that is read only.
--
-- Each check runs by itself: one that fails, waits for a lock or runs into
-- statement_timeout is a line of its own and hides no other. Nothing starts after a
-- minute, or what statement_timeout leaves: each check that was left out says so.
-- Raises LP002 for a check that does not exist. For holders of lapse.grant_observer.

create or replace function lapse.doctor(
    p_check text        default null,
    p_now   timestamptz default clock_timestamp()
)
    returns table (place integer, check_name text, level text, message text, command text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '200 ms'
    set jit = off
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
as $$
#variable_conflict use_column
declare
    c_most    constant integer := 10;  -- lines of one check
    v_now     timestamptz := coalesce(p_now, clock_timestamp());
    v_timeout interval := nullif(current_setting('statement_timeout')::interval, interval '0');
    v_end     timestamptz := least(clock_timestamp() + interval '60 s', statement_timestamp() + v_timeout * 0.8);
    v_super   boolean := (select r.rolsuper from pg_roles as r where r.rolname = current_user);
    v_check   record;
    v_rows    jsonb;
    v_row     record;
    v_state   text;
    v_message text;
    v_hint    text;
begin
    if p_check is not null and not exists (select from lapse.doctor_checks() as c where c.name = p_check) then
        raise exception 'there is no check %', p_check
            using errcode = 'LP002',
                  hint = 'Known: ' || (select string_agg(c.name, ', ' order by c.place) from lapse.doctor_checks() as c);
    end if;

    place := 0;
    for v_check in
        select c.* from lapse.doctor_checks() as c where p_check is null or c.name = p_check order by c.place
    loop
        if clock_timestamp() > v_end then
            v_rows := jsonb_build_array(jsonb_build_object(
                'level', 'warn', 'message', 'not looked at: there was no time left',
                'command', format('select * from lapse.doctor(%L);', v_check.name)));
        else
            begin
                v_rows := null;
                if (case when v_check.seen_by = 'superuser' then v_super
                         else pg_has_role(current_user, v_check.seen_by, 'usage') end) then
                    execute format('select coalesce(jsonb_agg(to_jsonb(f)), ''[]'') from lapse.%I($1) as f',
                                   'doctor_' || v_check.name)
                       into v_rows
                      using v_now;
                end if;
                v_rows := coalesce(v_rows, lapse.doctor_as_owner(v_check.name, v_now));
            exception
                when query_canceled or assert_failure or others then
                    get stacked diagnostics
                        v_state   = returned_sqlstate,
                        v_message = message_text,
                        v_hint    = pg_exception_hint;
                    if v_state = '57014' and clock_timestamp() < v_end then
                        raise;  -- somebody wants the whole call to end
                    end if;
                    v_rows := jsonb_build_array(jsonb_build_object(
                        'level', case when v_state like 'LP%' then 'fail' else 'warn' end,
                        'message', case when v_state like 'LP%' then v_message
                                        else format('could not be looked at: %s (%s)', v_message, v_state) end,
                        'command', coalesce(nullif(v_hint, ''), format('select * from lapse.doctor(%L);', v_check.name))));
            end;
        end if;

        -- What is well is worth a line only where nothing is wrong.
        for v_row in
            with said as (
                select f.*, row_number() over (order by f.level = 'fail' desc, f.n) as line
                  from (select e.n, e.said ->> 'level' as level, e.said ->> 'message' as message,
                               e.said ->> 'command' as command
                          from jsonb_array_elements(v_rows) with ordinality as e (said, n)) as f
                 where f.level <> 'ok'
                    or not exists (select from jsonb_array_elements(v_rows) as o (said)
                                    where o.said ->> 'level' <> 'ok')
            )
            select s.level, s.message, s.command, s.line from said as s where s.line <= c_most
            union all
            select 'warn', format('and %s more', count(*)), format('select * from lapse.doctor_as_owner(%L);', v_check.name),
                   c_most + 1
              from said as s
             where s.line > c_most
            having count(*) > 0
             order by 4
        loop
            place := place + 1;
            check_name := v_check.name;
            level := v_row.level;
            message := v_row.message;
            command := v_row.command;
            return next;
        end loop;
    end loop;
end;
$$;

comment on function lapse.doctor(text, timestamptz) is
    'Is all well? A line for each check, ok, warn or fail, and the command that mends it. select * from lapse.doctor();';
