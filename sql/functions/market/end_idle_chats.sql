-- market.end_idle_chats: one batch of policy end_idle_chats; chats idle for two minutes end.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own. The slots go to who waits, in the same
-- transaction; trigger settle_chats tells of all that, in this order. It takes its
-- turn first: what the engine does at the end of a batch (set constraints all
-- immediate) would else tell of chats assigned before those that made room. A chat
-- in which somebody writes now is locked, and skipped: of a message and the end,
-- one comes first and the other knows. See market.expire_coupons for the shape.

create or replace function market.end_idle_chats(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_now    timestamptz := greatest(p_cutoff, now());
    v_result lapse.progress;
begin
    perform market.take_turn();

    with due as materialized (
        select c.id, c.end_at
          from market.chats as c
         where c.status = 'active'
           and c.end_at >= p_after
           and c.end_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'end_idle_chats'
                              and b.key = c.id::text
                              and b.retry_at > p_cutoff)
         order by c.end_at, c.id
         limit p_limit
           for update of c skip locked
    ),
    ended as (
        update market.chats as c
           set status = 'ended', ended_at = v_now, end_reason = 'idle'
          from due as d
         where c.id = d.id
        returning 1
    )
    select (select count(*) from due), (select count(*) from ended), (select max(d.end_at) from due as d)
      into v_result;

    perform market.assign_at_once(v_now);

    return v_result;
end;
$$;

comment on function market.end_idle_chats(integer, timestamptz, timestamptz) is
    'Step of policy end_idle_chats: end at most p_limit chats idle for two minutes, longest idle first; their slots are given away.';
