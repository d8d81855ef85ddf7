-- note_chat_activity: who writes is not idle.
--
-- After every INSERT of messages. The chats that people wrote in, ended ones
-- aside, are active as of the latest message; what the system writes (a warning,
-- say) keeps no chat alive. Chats are locked in order of id, so that statements
-- which write in many can't deadlock with each other. For enable_seqscan see
-- queue_files_of_tasks.

create or replace function market.note_chat_activity()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    with written as materialized (
        select m.chat_id, max(m.created_at) as latest
          from new_messages as m
         where m.author_kind <> 'system'
         group by m.chat_id
    ),
    locked as materialized (
        select c.id, w.latest
          from written as w
          join market.chats as c on c.id = w.chat_id
         where c.status <> 'ended'
           and c.last_activity_at < w.latest
         order by c.id
           for no key update of c
    )
    update market.chats as c
       set last_activity_at = l.latest
      from locked as l
     where c.id = l.id;

    return null;
end;
$$;

comment on function market.note_chat_activity() is
    'Trigger: chats that people write in are not idle.';

create or replace trigger note_chat_activity
    after insert on market.chat_messages
    referencing new table as new_messages
    for each statement
    execute function market.note_chat_activity();

comment on trigger note_chat_activity on market.chat_messages is 'A message resets the idle time of its chat.';
