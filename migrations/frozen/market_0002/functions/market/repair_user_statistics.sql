-- market.repair_user_statistics: one batch of policy repair_user_statistics; statistics that counting contradicts are put right.
--
-- In: how many users at most; of the cutoff and the resume point it has no need.
-- Out: the users put right, as picked and as handled, so that this is what the
-- history of runs says. Raises nothing of its own. Statistics drift where triggers
-- don't fire: while they are disabled, on a subscriber, or when somebody writes to
-- the statistics by hand.
--
-- Users are compared in windows of a thousand, each by one statement, which sees
-- one state of the database: what others change meanwhile is on both sides of the
-- comparison or on neither. The difference is added to the deltas like any other
-- change, so nobody waits for anybody and nothing is undone. A call looks once
-- round, for 10 seconds at most, or half of what statement_timeout leaves, and notes
-- how far it has come: the next one goes on from there, in the same run if there
-- was more to put right than p_limit, else in the next.

create or replace function market.repair_user_statistics(
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
    c_first    constant bigint      := -9223372036854775808;
    c_last     constant bigint      := 9223372036854775807;
    v_until    timestamptz := clock_timestamp() + least(interval '10 s', lapse.statement_time_left() / 2);
    v_start    bigint;
    v_position bigint;
    v_wrapped  boolean     := false;
    v_end      bigint;
    v_reached  bigint;
    v_count    integer;
    v_mended   integer := 0;
begin
    if not pg_try_advisory_xact_lock(1835102827, hashtext('repair_user_statistics')) then
        return (0, 0, null)::lapse.progress;
    end if;
    insert into market.backstop_positions (policy) values ('repair_user_statistics') on conflict do nothing;
    select p.after_id into v_start from market.backstop_positions as p where p.policy = 'repair_user_statistics';
    v_position := v_start;

    loop
        -- Numbers of users who are gone lie between and after those of the others, and are looked at with them.
        select case when count(*) = 1000 then max(u.id) else c_last end
          into v_end
          from (select u.id from market.users as u where u.id > v_position order by u.id limit 1000) as u;

        with drift as (
            select coalesce(c.user_id, s.user_id) as user_id,
                   coalesce(c.tasks_posted, 0) - coalesce(s.tasks_posted, 0) as tasks_posted,
                   coalesce(c.tasks_taken, 0) - coalesce(s.tasks_taken, 0) as tasks_taken,
                   coalesce(c.tasks_completed, 0) - coalesce(s.tasks_completed, 0) as tasks_completed,
                   coalesce(c.tasks_cancelled, 0) - coalesce(s.tasks_cancelled, 0) as tasks_cancelled,
                   coalesce(c.reviews, 0) - coalesce(s.reviews, 0) as reviews,
                   coalesce(c.rating_sum, 0) - coalesce(s.rating_sum, 0) as rating_sum
              from (select r.* from market.user_statistics_recount as r
                     where r.user_id > v_position and r.user_id <= v_end) as c
              full join (select k.* from market.user_statistics as k
                          where k.user_id > v_position and k.user_id <= v_end) as s on s.user_id = c.user_id
        ),
        mended as (
            insert into market.user_statistics_deltas
                   (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled, reviews, rating_sum)
            select d.user_id, d.tasks_posted, d.tasks_taken, d.tasks_completed, d.tasks_cancelled, d.reviews,
                   d.rating_sum
              from drift as d
             where (d.tasks_posted, d.tasks_taken, d.tasks_completed, d.tasks_cancelled, d.reviews, d.rating_sum)
                   <> (0, 0, 0, 0, 0, 0)
             order by d.user_id
             limit p_limit - v_mended
            returning user_id
        )
        select count(*), max(m.user_id) into v_count, v_reached from mended as m;

        v_mended := v_mended + v_count;
        v_position := case when v_mended = p_limit then v_reached else v_end end;
        if v_position = c_last then
            v_position := c_first;
            exit when v_wrapped or v_start = c_first;
            v_wrapped := true;
        end if;
        exit when v_mended = p_limit or clock_timestamp() >= v_until or v_wrapped and v_position >= v_start;
    end loop;

    update market.backstop_positions as p set after_id = v_position where p.policy = 'repair_user_statistics';

    return (v_mended, v_mended, p_cutoff)::lapse.progress;
end;
$$;

comment on function market.repair_user_statistics(integer, timestamptz, timestamptz) is
    'Step of policy repair_user_statistics: put right the statistics of at most p_limit users whose numbers are not what counting gives.';
