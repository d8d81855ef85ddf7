-- market.purge_sessions: one batch of policy purge_sessions; lapsed sessions go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. A row locked elsewhere, by somebody
-- who renews it now, is skipped. The key is spelt as the engine spells it,
-- whatever bytea_output says. See market.expire_coupons for the shape.

create or replace function market.purge_sessions(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select s.token_hash, s.expires_at
          from market.sessions as s
         where s.expires_at >= p_after
           and s.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'purge_sessions'
                              and b.key = '\x' || encode(s.token_hash, 'hex')
                              and b.retry_at > p_cutoff)
         order by s.expires_at, s.token_hash
         limit p_limit
           for update of s skip locked
    ),
    gone as (
        delete from market.sessions as s
         using due as d
         where s.token_hash = d.token_hash
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.purge_sessions(integer, timestamptz, timestamptz) is
    'Step of policy purge_sessions: delete at most p_limit lapsed sessions, oldest first.';
