-- lapse.begin_run: open the run that lapse.run asks for.
--
-- In: the policy, the cutoff (NULL for now), whether a cutoff in the future is
-- meant. Out: the run's number, or NULL when another run is under way: that is
-- entered as skipped, noticed, and never waited for. Raises LP014 in a database that is not adopted, LP002 for an
-- unknown policy, LP005 for a paused one, LP015 for a braked one, LP001 for a cutoff that is not a time or lies in
-- the future unasked: such a run would take what has not lapsed.

create or replace function lapse.begin_run(p_policy text, p_as_of timestamptz, p_allow_future boolean)
    returns bigint
    language plpgsql
    volatile
    security definer  -- whoever may run a policy needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_enabled  boolean;
    v_braked   lapse.policy_state;
    v_state    lapse.policy_state;
    v_standing text;
begin
    perform lapse.check_adopted();
    perform lapse.leave_runs('lost');

    select p.enabled into v_enabled from lapse.policy as p where p.name = p_policy;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_policy, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;
    if not v_enabled then
        raise exception using
            errcode = 'LP005',
            message = format('policy %s is paused', p_policy),
            hint    = format('Take it up again with: select lapse.resume(%L)', p_policy);
    end if;
    select s.* into v_braked from lapse.policy_state as s where s.policy = p_policy and s.braked_at is not null
       and exists (select from lapse.policy as p where p.name = p_policy and p.max_fraction < 1);
    if found then
        raise exception using
            errcode = 'LP015',
            message = format('policy %s is braked since %s: %s of %s rows were due', p_policy,
                             date_trunc('second', v_braked.braked_at), v_braked.braked_rows, v_braked.braked_of),
            hint    = format('Look at what is due; if it may go: select lapse.release_brake(%L)', p_policy);
    end if;
    if not isfinite(p_as_of) then
        raise exception using
            errcode = 'LP001',
            message = format('a run can''t have the cutoff %s', p_as_of),
            hint    = 'Give a time, or leave it out for now.';
    end if;
    if p_as_of > clock_timestamp() and p_allow_future is not true then
        raise exception using
            errcode = 'LP001',
            message = format('the cutoff %s lies in the future', p_as_of),
            hint    = 'Rows that have not lapsed would go; if that is meant, add p_allow_future => true.';
    end if;

    select s.* into v_state
      from lapse.policy_state as s
     where s.policy = p_policy
       for update skip locked;
    v_standing := case when found then lapse.run_standing(v_state) else 'busy' end;

    if v_standing = 'busy' then
        insert into lapse.run_log (policy, source, status, as_of, started_at, finished_at, message)
        values (p_policy, 'manual', 'skipped', p_as_of, clock_timestamp(), clock_timestamp(),
                'another run is under way');
        raise notice 'policy % is being run already: nothing done', p_policy;
        return null;
    elsif v_standing = 'lost' then
        perform lapse.end_run(p_policy, 'lost', true, p_message => 'its session went away');
    elsif v_standing = 'stale' then
        perform lapse.end_run(p_policy, 'stopped', true, p_message => 'its session was held up elsewhere');
    end if;
    return lapse.open_run(p_policy, 'manual', p_as_of);
end;
$$;

comment on function lapse.begin_run(text, timestamptz, boolean) is
    'Open a run for lapse.run: its number, or NULL when another is under way.';
