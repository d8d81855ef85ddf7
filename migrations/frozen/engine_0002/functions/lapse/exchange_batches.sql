-- lapse.exchange_batches: what lapse.exchange_files and lapse.exchange_files_packed do, whatever they answer in.
--
-- In: as of lapse.exchange_files; and files that are gone without anything else to be said of them,
-- side by side: numbers, tokens, bytes. Out: as of lapse.claim_files, and with kind unsettled or stale, id and
-- token of a result, with kind halted the reason. Errors as of lapse.exchange_files. Results are taken in a
-- database that is not adopted, too: those files are gone.
--
-- What is gone is first taken for what it nearly always is (lapse.finish_gone): rows as the claim left them. Where one of
-- them is not, each is looked at by itself, like all other results.

create or replace function lapse.exchange_batches(
    p_worker      text,
    p_results     jsonb,
    p_storages    text[],
    p_limits      integer[],
    p_lease       interval,
    p_after_dues  timestamptz[],
    p_after_ids   bigint[],
    p_gone_ids    bigint[],
    p_gone_tokens bigint[],
    p_gone_bytes  bigint[]
)
    returns table (kind text, token bigint, storage text, ids bigint[], paths text[], attempts integer[],
                   dues timestamptz[], expecteds jsonb[], alone boolean, id bigint, due timestamptz,
                   wait_seconds double precision, note text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_each integer;
begin
    if p_worker is null or p_worker = '' then
        raise exception 'a worker needs a name'
            using errcode = 'LP001', hint = 'Give the name that lapse.worker_hello was given.';
    end if;

    if p_results is null or jsonb_typeof(p_results) <> 'array' then
        raise exception 'the results are malformed: not a JSON array'
            using errcode = 'LP001', hint = 'Give [] when there are none.';
    end if;

    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'can''t lease files for %', coalesce(p_lease::text, 'NULL')
            using errcode = 'LP001', hint = 'Give a lease of more than nothing and at most one day.';
    end if;

    -- A snapshot older than the rows' locks would miss references committed just before the claim.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'files are exchanged at isolation level read committed only'
            using errcode = 'LP012', hint = 'begin isolation level read committed';
    end if;

    perform lapse.check_claim(p_storages, p_limits, p_after_dues, p_after_ids);

    if p_gone_ids <> '{}' then
        if not lapse.finish_gone(p_worker, p_gone_ids, p_gone_tokens, p_gone_bytes) then
            p_results := p_results || (
                select jsonb_agg(jsonb_build_object('id', g.id, 'token', g.token, 'outcome', 'deleted', 'bytes', g.bytes))
                  from unnest(p_gone_ids, p_gone_tokens, p_gone_bytes) as g (id, token, bytes));
        end if;
    end if;

    if p_results <> '[]' then
        return query
        select s.kind, s.token, null::text, null::bigint[], null::text[], null::integer[], null::timestamptz[],
               null::jsonb[], null::boolean, s.id, null::timestamptz, null::double precision, s.note
          from lapse.settle_files(p_worker, p_results) as s;
    end if;

    if p_storages is distinct from '{}' and (p_limits is null or 0 < any (p_limits)) then
        note := lapse.halt_reason();

        if note is not null then
            kind := 'halted';
            return next;

            return query
            select 'wait', null::bigint, s.name, null::bigint[], null::text[], null::integer[], null::timestamptz[],
                   null::jsonb[], null::boolean, null::bigint, null::timestamptz, 10::double precision, null::text
              from unnest(coalesce(p_storages, array[null])) with ordinality as s (name, position)
             where p_limits[s.position] is distinct from 0;
            return;
        end if;
    end if;

    if p_storages is null then
        p_storages := lapse.queued_storages();
        v_each := coalesce(p_limits[1], 500);
        p_limits := array_fill(v_each, array[cardinality(p_storages)]);

        if p_storages = '{}' and v_each > 0 then
            kind := 'wait';
            return next;
        end if;
    end if;

    if p_storages <> '{}' then
        return query
        select c.kind, c.token, c.storage, c.ids, c.paths, c.attempts, c.dues, c.expecteds, c.alone, c.id, c.due,
               c.wait_seconds, null::text
          from lapse.claim_files(p_worker, p_storages,
                                 coalesce(p_limits, array_fill(500, array[cardinality(p_storages)])),
                                 p_lease, p_after_dues, p_after_ids) as c;
    end if;
end;
$$;

comment on function lapse.exchange_batches(text, jsonb, text[], integer[], interval, timestamptz[], bigint[], bigint[], bigint[], bigint[]) is
    'Internal: record the results of the last batches of files and lease the next ones.';
