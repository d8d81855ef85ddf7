-- market.chat_events_after: what happened to chats since the last event that you saw.
--
-- In: the number of the last event seen (0: from the beginning), be it from here
-- or from a notification, and at most how many to return. Out: the events after
-- it, in the order in which they were committed. None is missed: numbers are given
-- out while no other transaction that has one is still open (trigger settle_chats),
-- so nothing with a smaller number can appear later. Events are kept for a week;
-- who was away for longer looks at market.chats. Raises LP101 for a number that
-- was never given out, as after a restore: start again from 0. LP108 for NULL or
-- a limit that is not positive.

create or replace function market.chat_events_after(
    p_id    bigint,
    p_limit integer default 1000
)
    returns table (
        id bigint, kind text, chat_id bigint, user_id bigint, agent_id bigint, reason text, happened_at timestamptz)
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    if num_nulls(p_id, p_limit) > 0 then
        raise exception 'chat_events_after was given NULL'
            using errcode = 'LP108', hint = 'Give the number of the last event seen, or 0, and a limit.';
    elsif p_limit < 1 then
        raise exception 'can''t return % events', p_limit
            using errcode = 'LP108', hint = 'Give a positive limit.';
    elsif p_id > coalesce(pg_sequence_last_value('market.chat_events_id_seq'), 0) then
        raise exception 'event % is unknown', p_id
            using errcode = 'LP101',
                  hint = 'So many events never happened here. Was the database restored? Start again from 0.';
    end if;

    return query
    select e.id, e.kind, e.chat_id, e.user_id, e.agent_id, e.reason, e.happened_at
      from market.chat_events as e
     where e.id > p_id
     order by e.id
     limit p_limit;
end;
$$;

comment on function market.chat_events_after(bigint, integer) is
    'Events of chats after the last one that you saw, in the order of commits. LP101 a number that was never given out.';
