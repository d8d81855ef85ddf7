-- lapse.doctor_lag: which policies are behind?
--
-- In: the time. Out: findings for lapse.doctor. A row may wait for its policy's next slot, and
-- for the one after where that had no time; what waits for longer does so for a reason. A
-- policy that is paused is behind as soon as a row is due; one that is braked is lapse.doctor_policies'. Counting stops at 10,000.

create or replace function lapse.doctor_lag(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with looked as materialized (
        select p.name, p.enabled, p.every, s.next_run_at, s.run_id, s.braked_at is not null as braked,
               case when b.capped then 'at least ' else '' end || b.rows as due, b.rows, p_now - b.oldest_due as age,
               greatest(2 * p.every, interval '10 minutes') as patience
          from lapse.policy as p
          join lapse.policy_state as s on s.policy = p.name
         cross join lateral lapse.backlog(p.name, 10000, p_now) as b
    )
    select case when l.age > 2 * l.patience then 'fail' else 'warn' end,
           format('policy %s is behind: %s rows are due, the oldest for %s, and it runs every %s', l.name, l.due,
                  lapse.doctor_span(l.age), lapse.doctor_span(l.every)),
           format('call lapse.run(%L);', l.name)
      from looked as l
     where l.enabled and not l.braked and l.age > l.patience
    union all
    select 'fail',
           format('policy %s was to run %s ago, and nobody has served it', l.name, lapse.doctor_span(p_now - l.next_run_at)),
           format('call lapse.run(%L); -- if that says that it is busy, see lapse.policy_status.running_since', l.name)
      from looked as l
     where l.enabled and not l.braked and l.run_id is null and l.next_run_at < p_now - interval '10 minutes'
    union all
    select 'warn',
           format('policy %s is paused, and %s rows are due, the oldest for %s', l.name, l.due, coalesce(lapse.doctor_span(l.age), 'ever')),
           format('select lapse.resume(%L);', l.name)
      from looked as l
     where not l.enabled and l.rows > 0
    union all
    select 'ok',
           format('no policy is behind%s',
                  (select format('; the oldest due row waits for policy %s, for %s', l.name, lapse.doctor_span(l.age))
                     from looked as l where l.age is not null order by l.age desc limit 1)),
           null
$$;

comment on function lapse.doctor_lag(timestamptz) is
    'Check of lapse.doctor: policies whose rows wait for longer than they should.';
