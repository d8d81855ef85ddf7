-- lapse.attachment_trigger_code: the source of an attachment's trigger function.
--
-- In: an attachment, its columns checked. Out: the body, in plpgsql. What it does is said in its own header, which
-- is part of it. Where a row may be in a state that does not need its file, the parts that deal with it are put
-- in; else they are left out, and what is left is short.
--
-- One function serves all events, since each looks at a row in the same way. What it does not do is to look at the
-- rows again, as the marketplace's triggers must: a row that a trigger of the application's own has changed once more
-- is dealt with by that change, and what this one queues on top is found out by the source when a worker asks.
-- Saving is the other way round: so a file leaves the queue only if a row names it now.

create or replace function lapse.attachment_trigger_code(p_attachment lapse.attachment)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $template$
declare
    v_ends     boolean := p_attachment.live_when is not null;
    v_terms    jsonb := lapse.attachment_terms(p_attachment);
    v_keep     text;
    v_template text;
    c_before   constant text := $code$
            with numbered as (
                select o.*, (rank() over (order by o.storage, lapse.path_digest(o.path)) - 1) / 10000 as chunk
                  from (select {storage} as storage, {path} as path, {id} as id
                          from only $code$;
    c_after    constant text := $code$ as t
                         where {held}) as o
            )
            select array_agg(n.storage), array_agg(n.path), array_agg(n.id)
              from numbered as n
             group by n.chunk
             order by n.chunk$code$;
begin
    v_keep := $code$
            if v_paths is not null then
                -- Named by this transaction. Is any of it queued, and if so, does a row need it as it is now?
                select array_agg(q.storage), array_agg(q.path)
                  into v_storages, v_paths
                  from lapse.need_files(v_storages, v_paths) as q;
                if v_paths is not null then
                    select array_agg(q.storage), array_agg(q.path)
                      into v_storages, v_paths
                      from unnest(v_storages, v_paths) as q (storage, path)
                     cross join lateral (select
                                           from {target} as t
                                          where {of_q}
                                            and {held}
                                            and {live}
                                          limit 1) as r;
                end if;
                if v_paths is not null then
                    perform lapse.cancel_files(v_storages, v_paths);
                end if;
            end if;$code$;

    v_template := $code$
-- {function}: queue files that rows of {target} name no more, and save those that are named again.
--
-- Made by lapse.attach_files: change it by calling that again with p_replace => true, not here. It runs after each
-- statement, with the rights of the table's owner, in the transaction of the change: row deleted or truncated, path or
-- storage replaced, row in a state that does not need its file: queued. Row inserted, or given another file, or in
-- a state that needs it again: taken out of the queue. Files go through the queue in the order of its key and by
-- the ten thousand, all requests for one file together.
--
-- Declared: {declared}

#variable_conflict use_column
declare
    v_storages text[];
    v_paths    text[];
    v_ids      text[];$code$
    || case when v_ends then $code$
    v_ended_storages text[];  -- of rows that do not need their file, or no more
    v_ended_paths    text[];
    v_ended_ids      text[];
    v_ended_dues     timestamptz[];
    v_moved_storages text[];  -- those of them that did not need it before either, but go at another time now
    v_moved_paths    text[];$code$ else '' end
    || $code$
    v_left_storages text[];
    v_left_paths    text[];
    v_left_ids      text[];
    v_files         integer;  -- 0, 1, or more
    v_storage       text;
    v_path          text;
    v_live          boolean;
begin
    if tg_op = 'DELETE' then
        begin
            -- Mostly nothing of it is queued yet: an INSERT that knows of no conflicts costs half of one that does.
            insert into lapse.file_cleanup_queue (storage, path, reason, source_table, source_id, not_before, generation)
            select distinct on ({storage}, lapse.path_digest({path}))
                   {storage}, {path}, 'row deleted', {table}, {id}, {after_deleted}, 1
              from old_rows as t
             where {held}
             order by {storage}, lapse.path_digest({path});
            if found then
                perform lapse.nudge_workers({after_deleted});
            end if;
            return null;
        exception when unique_violation then
            null;  -- all of it is merged with what is queued
        end;

        for v_storages, v_paths, v_ids in
            with numbered as (
                select o.*, (rank() over (order by o.storage, lapse.path_digest(o.path)) - 1) / 10000 as chunk
                  from (select {storage} as storage, {path} as path, {id} as id
                          from old_rows as t
                         where {held}) as o
            )
            select array_agg(n.storage), array_agg(n.path), array_agg(n.id)
              from numbered as n
             group by n.chunk
             order by n.chunk
        loop
            perform lapse.enqueue_paths(v_storages, v_paths, {after_deleted}, 'row deleted', {table}, v_ids);
        end loop;

    elsif tg_op = 'INSERT' then
        -- One row is what most statements bring, and mostly its file is not queued: that is found out the short way.
        select count(*), min(o.storage), min(o.path), bool_and(o.live)
          into v_files, v_storage, v_path, v_live
          from (select {storage} as storage, {path} as path, {live} as live
                  from new_rows as t
                 where {held}
                 limit 2) as o;
        if v_files = 0 or v_files = 1 and v_live and not lapse.need_file(v_storage, v_path) then
            return null;
        end if;

        for v_storages, v_paths$code$
    || case when v_ends then ', v_ended_storages, v_ended_paths, v_ended_ids, v_ended_dues' else '' end || $code$ in
            with numbered as (
                select o.*, (rank() over (order by o.storage, lapse.path_digest(o.path)) - 1) / 10000 as chunk
                  from (select {storage} as storage, {path} as path, {id} as id, {live} as live, {due} as due
                          from new_rows as t
                         where {held}) as o
            )
            select array_agg(n.storage) filter (where n.live), array_agg(n.path) filter (where n.live)$code$
    || case when v_ends then $code$,
                   array_agg(n.storage) filter (where not n.live), array_agg(n.path) filter (where not n.live),
                   array_agg(n.id) filter (where not n.live), array_agg(n.due) filter (where not n.live)$code$ else '' end
    || $code$
              from numbered as n
             group by n.chunk
             order by n.chunk
        loop$code$
    || case when v_ends then $code$
            if v_ended_paths is not null then
                perform lapse.enqueue_paths(v_ended_storages, v_ended_paths, {after_ended}, 'not needed', {table},
                                            v_ended_ids, v_ended_dues);
            end if;$code$ else '' end
    || v_keep || $code$
        end loop;

    elsif tg_op = 'UPDATE' then
        -- Most updates are about something else: a small plan finds that out.
        if not exists (select
                         from (select {keys}, {storage} as storage, {path} as path, ({held}) as held, {live} as live, {due} as due
                                 from old_rows as t) as o
                         full join (select {keys}, {storage} as storage, {path} as path, ({held}) as held, {live} as live,
                                           {due} as due
                                      from new_rows as t) as n on {same}
                        where (n.storage, n.path, n.held, n.live, n.due)
                              is distinct from (o.storage, o.path, o.held, o.live, o.due)) then
            return null;
        end if;

        for v_left_storages, v_left_paths, v_left_ids, v_storages, v_paths$code$
    || case when v_ends then $code$,
            v_ended_storages, v_ended_paths, v_ended_ids, v_ended_dues, v_moved_storages, v_moved_paths$code$ else '' end
    || $code$ in
            with change as materialized (
                select o.id as old_id, o.storage as old_storage, o.path as old_path, o.held as old_held, o.live as old_live,
                       n.id, n.storage, n.path, n.held, n.live, n.due
                  from (select {keys}, {id} as id, {storage} as storage, {path} as path, ({held}) as held, {live} as live,
                               {due} as due
                          from old_rows as t) as o
                  full join (select {keys}, {id} as id, {storage} as storage, {path} as path, ({held}) as held, {live} as live,
                                    {due} as due
                               from new_rows as t) as n on {same}
                 where (n.storage, n.path, n.held, n.live, n.due)
                       is distinct from (o.storage, o.path, o.held, o.live, o.due)
            ),
            verdict as (
                select c.old_id as id, c.old_storage as storage, c.old_path as path, 'left' as verdict, null::timestamptz as due
                  from change as c
                 where c.old_held
                   and (c.storage, c.path) is distinct from (c.old_storage, c.old_path)
                union all
                select c.id, c.storage, c.path,
                       case when c.live then 'needed'
                            when c.old_held and not c.old_live and (c.storage, c.path) = (c.old_storage, c.old_path) then 'moved'
                            else 'ended' end,
                       c.due
                  from change as c
                 where c.held
            ),
            numbered as (
                -- What one row leaves and another takes up in the same statement has not been left.
                select v.*, (rank() over (order by v.storage, lapse.path_digest(v.path)) - 1) / 10000 as chunk,
                       bool_or(v.verdict <> 'left') over (partition by v.storage, lapse.path_digest(v.path)) as named
                  from verdict as v
            )
            select array_agg(n.storage) filter (where n.verdict = 'left' and not n.named),
                   array_agg(n.path) filter (where n.verdict = 'left' and not n.named),
                   array_agg(n.id) filter (where n.verdict = 'left' and not n.named),
                   array_agg(n.storage) filter (where n.verdict = 'needed'),
                   array_agg(n.path) filter (where n.verdict = 'needed')$code$
    || case when v_ends then $code$,
                   array_agg(n.storage) filter (where n.verdict in ('ended', 'moved')),
                   array_agg(n.path) filter (where n.verdict in ('ended', 'moved')),
                   array_agg(n.id) filter (where n.verdict in ('ended', 'moved')),
                   array_agg(n.due) filter (where n.verdict in ('ended', 'moved')),
                   array_agg(n.storage) filter (where n.verdict = 'moved'),
                   array_agg(n.path) filter (where n.verdict = 'moved')$code$ else '' end
    || $code$
              from numbered as n
             group by n.chunk
             order by n.chunk
        loop
            if v_left_paths is not null then
                perform lapse.enqueue_paths(v_left_storages, v_left_paths, {after_replaced}, 'path replaced', {table},
                                            v_left_ids);
            end if;$code$
    || case when v_ends then $code$
            if v_moved_paths is not null then
                perform lapse.cancel_files(v_moved_storages, v_moved_paths);  -- the queue keeps the earlier of two times
            end if;
            if v_ended_paths is not null then
                perform lapse.enqueue_paths(v_ended_storages, v_ended_paths, {after_ended}, 'not needed', {table},
                                            v_ended_ids, v_ended_dues);
            end if;$code$ else '' end
    || v_keep || $code$
        end loop;

    else
        -- TRUNCATE fires this before it, on each partition by itself.
        for v_storages, v_paths, v_ids in execute {before_table} || tg_relid::regclass || {after_table}
        loop
            perform lapse.enqueue_paths(v_storages, v_paths, {after_truncated}, 'table truncated', {table}, v_ids);
        end loop;
    end if;

    return null;
end;
$code$;

    return lapse.filled(v_template, v_terms || jsonb_build_object(
        'declared',     lapse.declared_attachment(p_attachment)::text,
        'before_table', quote_literal(lapse.filled(c_before, v_terms)),
        'after_table',  quote_literal(lapse.filled(c_after, v_terms))));
end;
$template$;

comment on function lapse.attachment_trigger_code(lapse.attachment) is
    'Internal: the source of the trigger function that lapse.attach_files makes.';
