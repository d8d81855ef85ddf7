-- lapse.doctor_clock: was the server's clock set back?
--
-- In: the time. Out: findings for lapse.doctor. What was written while the clock was ahead lies
-- in the future now: a policy is not due before then, a scheduler or worker that died looks
-- alive until then. Two minutes are allowed, as the engine does.

create or replace function lapse.doctor_clock(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with late (horizon) as (select p_now + interval '2 minutes')
    select 'fail',
           format('policy %s runs every %s and is not due before %s: the clock was ahead when that was written',
                  s.policy, lapse.doctor_span(p.every), coalesce(nullif(s.next_run_at, 'infinity')::text, 'ever')),
           format('update lapse.policy_state set slot_at = now(), next_run_at = now() where policy = %L;', s.policy)
      from lapse.policy_state as s
      join lapse.policy as p on p.name = s.policy
     where p.enabled
       and s.next_run_at > p_now + greatest(p.every, interval '1 hour') + interval '3 hours'  -- back-off, and summer time
    union all
    select 'fail',
           format('policy %s was last served %s from now: the clock was set back, and others go first until then',
                  s.policy, lapse.doctor_span(s.last_served_at - p_now)),
           format('update lapse.policy_state set last_served_at = now() where policy = %L;', s.policy)
      from lapse.policy_state as s, late
     where s.last_served_at > late.horizon
    union all
    select 'warn',
           format('the last tick of %s is %s from now: the clock was set back', t.source, lapse.doctor_span(t.last_tick_at - p_now)),
           format('update lapse.tick_source set last_tick_at = now() where source = %L;', t.source)
      from lapse.tick_source as t, late
     where t.last_tick_at > late.horizon
    union all
    select 'warn',
           format('worker %s was last seen %s from now: the clock was set back', w.id, lapse.doctor_span(w.last_seen_at - p_now)),
           format('update lapse.worker set last_seen_at = now() where id = %L;', w.id)
      from lapse.worker as w, late
     where w.last_seen_at > late.horizon
    union all
    select 'warn',
           format('the last sweep of storage %s began %s from now: the clock was set back', s.name,
                  lapse.doctor_span(s.sweep_began_at - p_now)),
           format('update lapse.storage set sweep_began_at = null where name = %L;', s.name)
      from lapse.storage as s, late
     where s.sweep_began_at > late.horizon
    union all
    select 'ok', 'nothing was written in the future', null
$$;

comment on function lapse.doctor_clock(timestamptz) is
    'Check of lapse.doctor: times that lie in the future, since the clock was set back.';
