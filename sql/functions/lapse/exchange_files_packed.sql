-- lapse.exchange_files_packed: lapse.exchange_files for a worker in a hurry.
--
-- In: as of lapse.exchange_files, but resume points in microseconds since 1970; and files that are gone
-- without anything else to be said of them (outcome deleted, no error), side by side: numbers, tokens, bytes
-- released. Out: as of lapse.exchange_files, but one row for all files taken of a storage: files is
-- {"ids": [], "paths": [], "attempts": [], "expected": [] or null}, side by side; and due in microseconds since
-- 1970. Errors as of lapse.exchange_files.
--
-- A row of its own for each file cost more to pass on, to write and to read than the lease itself.

create or replace function lapse.exchange_files_packed(
    p_worker      text,
    p_results     jsonb     default '[]',
    p_storages    text[]    default null,
    p_limits      integer[] default null,
    p_lease       interval  default '60 s',
    p_after_dues  bigint[]  default null,
    p_after_ids   bigint[]  default null,
    p_gone_ids    bigint[]  default '{}',
    p_gone_tokens bigint[]  default '{}',
    p_gone_bytes  bigint[]  default '{}'
)
    returns table (kind text, id bigint, token bigint, storage text, due bigint, alone boolean,
                   wait_seconds double precision, note text, files json)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set jit = off
    set row_security = off
    set lock_timeout = '250ms'
as $$
#variable_conflict use_column
begin
    return query
    select b.kind, b.id, b.token, b.storage, (extract(epoch from b.due) * 1000000)::bigint, b.alone, b.wait_seconds, b.note,
           case when b.kind = 'claimed'
                then json_build_object('ids', b.ids, 'paths', b.paths, 'attempts', b.attempts, 'expected', b.expecteds)
           end
      from lapse.exchange_batches(
               p_worker, p_results, p_storages, p_limits, p_lease,
               case when p_after_dues is not null
                    then array(select 'epoch'::timestamptz + u.due * interval '1 microsecond'
                                 from unnest(p_after_dues) with ordinality as u (due, position)
                                order by u.position) end,
               p_after_ids, p_gone_ids, p_gone_tokens, p_gone_bytes) as b;
end;
$$;

comment on function lapse.exchange_files_packed(text, jsonb, text[], integer[], interval, bigint[], bigint[], bigint[], bigint[], bigint[]) is
    'For workers: lapse.exchange_files with all files of a storage in one row.';
