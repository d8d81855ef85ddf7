-- lapse.doctor_blocked_rows: which rows could not lapse?
--
-- In: the time. Out: findings for lapse.doctor, one a policy, with the newest error. Rows that
-- are held on purpose (retry_at infinity) are none of them. From 1,000 on a policy fails.

create or replace function lapse.doctor_blocked_rows(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case when count(*) < 1000 then 'warn' else 'fail' end,
           format('policy %s has set aside %s rows, the first %s ago; row %s: %s', b.policy, count(*),
                  lapse.doctor_span(p_now - min(b.since)),
                  left((array_agg(b.key order by b.touched_at desc))[1], 100),
                  left((array_agg(b.error order by b.touched_at desc))[1], 300)),
           format('update lapse.blocked_row set retry_at = now() where policy = %L and retry_at < ''infinity''; -- mend the cause first; the next run tries them',
                  b.policy)
      from lapse.blocked_row as b
     where b.retry_at < 'infinity'
     group by b.policy
    union all
    select 'ok', format('no row is set aside; %s are held on purpose', count(*)), null
      from lapse.blocked_row as b
     where b.retry_at = 'infinity'
$$;

comment on function lapse.doctor_blocked_rows(timestamptz) is
    'Check of lapse.doctor: rows that were set aside since they could not lapse.';
