"""A type like an extension's citext: it turns into text, and is equal whatever its case."""

WORDS = """
create schema words;
create type words.word;
create function words.word_in(cstring) returns words.word language internal immutable strict as 'textin';
create function words.word_out(words.word) returns cstring language internal immutable strict as 'textout';
create type words.word (
    input = words.word_in, output = words.word_out, like = text, category = 'S', preferred = false
);
create cast (words.word as text) without function as implicit;
create cast (text as words.word) without function as assignment;
create function words.same(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) = lower($2::text); end $$;
create function words.other(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) <> lower($2::text); end $$;
create function words.below(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) < lower($2::text); end $$;
create function words.at_most(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) <= lower($2::text); end $$;
create function words.above(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) > lower($2::text); end $$;
create function words.at_least(words.word, words.word) returns boolean language plpgsql immutable strict as
    $$ begin return lower($1::text) >= lower($2::text); end $$;
create function words.compared(words.word, words.word) returns integer language plpgsql immutable strict as
    $$ begin return case when lower($1::text) < lower($2::text) then -1
                   when lower($1::text) > lower($2::text) then 1 else 0 end; end $$;
create operator words.< (leftarg = words.word, rightarg = words.word, function = words.below,
    commutator = operator(words.>));
create operator words.<= (leftarg = words.word, rightarg = words.word, function = words.at_most,
    commutator = operator(words.>=));
create operator words.= (leftarg = words.word, rightarg = words.word, function = words.same,
    commutator = operator(words.=), negator = operator(words.<>));
create operator words.<> (leftarg = words.word, rightarg = words.word, function = words.other,
    commutator = operator(words.<>), negator = operator(words.=));
create operator words.>= (leftarg = words.word, rightarg = words.word, function = words.at_least,
    commutator = operator(words.<=));
create operator words.> (leftarg = words.word, rightarg = words.word, function = words.above,
    commutator = operator(words.<));
create operator class words.word_ops default for type words.word using btree as
    operator 1 words.<, operator 2 words.<=, operator 3 words.=, operator 4 words.>=, operator 5 words.>,
    function 1 words.compared(words.word, words.word);
"""
