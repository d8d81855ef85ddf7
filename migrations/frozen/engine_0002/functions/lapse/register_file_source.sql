-- lapse.register_file_source: make known a schema that refers to files.
--
-- In: a name; a function that says which of the given files are still needed (and until when:
-- NULL or infinity for good); and, if wanted, one that is told which files are gone and returns
-- those that it could not record, since their rows are locked; one that says which of the given files
-- any row speaks of, needed or not; and one that lists the files that rows speak of, page by page:
--   in_use  (text[], text[]) returns table (storage text, path text, until timestamptz)
--   removed (text[], text[], timestamptz[]) returns table (storage text, path text)
--   known   (text[], text[]) returns table (storage text, path text)
--   listed  (text, text, integer) returns table (path text)
-- The first three get storages and paths side by side, removed also when the worker took each file: a
-- row that has named the file only since then speaks of one written anew, and must be left alone, or
-- that one would lose its protection. listed gets a storage, the last path of the page before
-- (NULL: from the start) and how many, in an order of its own. Sweeps for orphans need both known
-- and listed of every source. None must wait for locks; they are called with the engine
-- owner's rights: hence SECURITY DEFINER or the owner's own (LP010). LP001 for a missing or
-- mistyped function, LP003 for a name in use. Only the engine's owner may register.

create or replace function lapse.register_file_source(
    p_name    text,
    p_in_use  text,
    p_removed text default null,
    p_known   text default null,
    p_listed  text default null
)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_pairs constant text := 'TABLE(storage text, path text)';
    v_in_use  text;
    v_removed text;
    v_known   text;
    v_listed  text;
begin
    if p_name is null or p_name !~ '^[a-z][a-z0-9_]{0,62}$' then
        raise exception 'a file source can''t be named %', coalesce(quote_literal(p_name), 'NULL')
            using errcode = 'LP001', hint = 'Use lower-case letters, digits and underscores, beginning with a letter.';
    end if;

    v_in_use := lapse.check_file_source_function(
        p_in_use, 'text[], text[]', 'TABLE(storage text, path text, until timestamp with time zone)');
    if p_removed is not null then
        v_removed := lapse.check_file_source_function(p_removed, 'text[], text[], timestamp with time zone[]', c_pairs);
    end if;
    if p_known is not null then
        v_known := lapse.check_file_source_function(p_known, 'text[], text[]', c_pairs);
    end if;
    if p_listed is not null then
        v_listed := lapse.check_file_source_function(p_listed, 'text, text, integer', 'TABLE(path text)');
    end if;

    insert into lapse.file_source (name, in_use, removed, known, listed)
    values (p_name, v_in_use, v_removed, v_known, v_listed)
    on conflict (name) do nothing;

    if not found then
        raise exception 'file source % is registered already', p_name
            using errcode = 'LP003',
                  hint = format('Remove it first: select lapse.unregister_file_source(%L).', p_name);
    end if;
end;
$$;

comment on function lapse.register_file_source(text, text, text, text, text) is
    'Register the functions of a schema that refers to files: asked before a file is deleted, told after.';
