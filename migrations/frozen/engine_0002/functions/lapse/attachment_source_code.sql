-- lapse.attachment_source_code: the source of one of the functions by which an attached table answers for its files.
--
-- In: an attachment, its columns checked; which function: in_use, known, listed or removed (see
-- lapse.register_file_source). Out: its body, in SQL; NULL for removed where no column says when a file was deleted.
-- Each file is looked up by itself ("offset 0" and limit keep the look-ups from becoming a join), so a plan that was
-- made for few rows serves for many. Only what is not needed is marked as removed: a row that needs its file and
-- was deleted under it, since it came too late, may have had it written anew by now, and marked as gone it would be
-- protected no more.

create or replace function lapse.attachment_source_code(p_attachment lapse.attachment, p_function text)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $template$
declare
    v_terms jsonb := lapse.attachment_terms(p_attachment);
begin
    if p_function = 'in_use' and p_attachment.lookup is null then
        -- Without an index each file would be looked for in the whole table. Nothing goes until there is one.
        return lapse.filled($code$
-- {function}_in_use: which of these files rows of {target} still need. It can't be told: there is no index yet.
--
-- Made by lapse.attach_files with p_index => 'later'. Once the index is there, call it again with p_replace => true.

begin
    raise exception 'table % has no index yet by which a file''s rows are found', {table}
        using errcode = 'LP037', hint = 'Create it, then call lapse.attach_files again with p_replace => true.';
end;
$code$, v_terms);
    end if;

    if p_function = 'removed' and p_attachment.removed_column is null then
        return null;
    end if;

    return lapse.filled(case p_function
        when 'in_use' then $code$
-- {function}_in_use: which of these files rows of {target} still need, and until when.
--
-- Made by lapse.attach_files; asked before a worker deletes a file. NULL until: nobody knows.

select a.storage, a.path, case when bool_or(r.live) then null else max(r.due) end
  from unnest($1, $2) as a (storage, path)
 cross join lateral (select {live} as live, {due} as due
                       from {target} as t
                      where {of_a}
                        and {held}
                     offset 0) as r
 where r.live
    or r.due > clock_timestamp()
 group by a.storage, a.path
$code$
        when 'known' then $code$
-- {function}_known: which of these files a row of {target} speaks of, needed or not.
--
-- Made by lapse.attach_files; asked by sweeps for orphans.

select a.storage, a.path
  from unnest($1, $2) as a (storage, path)
 cross join lateral (select
                       from {target} as t
                      where {of_a}
                        and {held}
                      limit 1) as r
$code$
        when 'listed' then $code$
-- {function}_listed: the files of a storage that rows of {target} speak of, page by page.
--
-- Made by lapse.attach_files; asked by sweeps for rows whose file is not there.

select distinct on ({order}) {path}
  from {target} as t
 where {ours}
   and {order} > {after}
   and {held}
 order by {order}
 limit $3
$code$
        when 'removed' then $code$
-- {function}_removed: note in rows of {target} that these files are gone.
--
-- Made by lapse.attach_files; told by workers. Waits for nobody: rows that are locked are returned, to be told
-- again. A row that needs its file is left alone: it may have been written anew.

with gone as materialized (
    select distinct a.storage, a.path
      from unnest($1, $2, $3) as a (storage, path, claimed_at)
),
named as materialized (
    select a.storage, a.path, r.*
      from gone as a
     cross join lateral (select {keys}
                           from {target} as t
                          where {of_a}
                            and {held}
                            and not {live}
                            and coalesce({due} <= clock_timestamp(), true)
                         offset 0) as r
),
locked as materialized (
    select n.*
      from (select * from named order by {sorted} offset 0) as n
     cross join lateral (select
                           from {target} as t
                          where {found}
                            and {of_n}
                            and {held}
                            and not {live}
                         offset 0
                            for no key update skip locked) as r
),
marked as (
    update {target} as t
       set {removed} = now()
      from locked as n
     where {found}
    returning {keys}
)
select distinct n.storage, n.path
  from named as n
  left join marked as m on {marked}
 where m.k1 is null
$code$
        end, v_terms);
end;
$template$;

comment on function lapse.attachment_source_code(lapse.attachment, text) is
    'Internal: the source of one of the functions by which an attached table answers for its files.';
