-- lapse.doctor_policies: which policies fail?
--
-- In: the time. Out: findings for lapse.doctor: steps that may not be run, targets that are
-- gone, policies that the brake holds, and policies whose last runs failed or were lost. A first failure is a warning, the
-- third in a row is none of chance.

create or replace function lapse.doctor_policies(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy record;
    v_paused text;
begin
    for v_policy in
        select p.name, p.step, p.target_table, p.enabled, s.consecutive_failures as failures, s.last_error, s.last_status,
               s.last_run_at, s.braked_at, s.braked_rows, s.braked_of
          from lapse.policy as p
          join lapse.policy_state as s on s.policy = p.name
         order by s.consecutive_failures desc, p.name
    loop
        if not v_policy.enabled then
            v_paused := concat_ws(', ', v_paused, v_policy.name);
            continue;
        end if;

        begin
            perform lapse.check_step(v_policy.step);
        exception
            when others then
                declare
                    v_hint text;
                begin
                    get stacked diagnostics v_hint = pg_exception_hint;
                    return query select 'fail', format('policy %s can''t run: %s', v_policy.name, sqlerrm),
                                        coalesce(nullif(v_hint, ''), format('select lapse.drop_policy(%L);', v_policy.name));
                end;
                continue;
        end;

        if v_policy.target_table is not null and to_regclass(lapse.quoted_name(v_policy.target_table)) is null then
            return query select 'fail', format('policy %s works on table %s, which is gone', v_policy.name, v_policy.target_table),
                                format('select lapse.drop_policy(%L);', v_policy.name);
        elsif v_policy.braked_at is not null then
            return query select 'fail', format('policy %s is braked for %s and takes nothing: %s of %s rows were due', v_policy.name,
                                               lapse.doctor_span(p_now - v_policy.braked_at), v_policy.braked_rows,
                                               v_policy.braked_of),
                                format('select * from lapse.release_brake(%L); -- once somebody has looked', v_policy.name);
        elsif v_policy.failures > 0 then
            return query select case when v_policy.failures < 3 then 'warn' else 'fail' end,
                                format('policy %s %s, %s in a row, last %s ago: %s', v_policy.name, v_policy.last_status,
                                       v_policy.failures, lapse.doctor_span(p_now - v_policy.last_run_at),
                                       left(coalesce(v_policy.last_error, 'without an error'), 300)),
                                format('call lapse.run(%L); -- shows the error whole, or that it is mended', v_policy.name);
        end if;
    end loop;
    return query select 'ok', (select count(*) from lapse.policy as p where p.enabled) || ' policies run'
                              || coalesce('; paused: ' || left(v_paused, 300), ''), null::text;
end;
$$;

comment on function lapse.doctor_policies(timestamptz) is
    'Check of lapse.doctor: policies that fail or could not run.';
