"""The runner of pages runs what a page says, and tells when it is not so."""

from pathlib import Path

import pytest

from tests.support import pages

GOOD = """
# A page

```sql
create table t (a int, b text);
insert into t values (1, 'x;y'), (2, null);  -- two; rows
do $$ begin perform 1; end $$;
select a, b from t order by a;
```
```text
1 | x;y
2 |
```

```sql fails 22012
create table u ();
select 1 / 0;
```
```text
ERROR:  division ... zero
```

```sql skip
select nothing from nowhere;
```

```sql psql
\\echo said
select count(*) from t;
```
```text
said
2
```

```sh run
echo "$DATABASE_URL" | grep -q pglapse && pglapse --help > /dev/null
python -c 'print(1)'
```

```sh
exit 1
```

```python run
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
    conn.execute("create table v ()")
```

```sql
select to_regclass('u'), to_regclass('v') is null;
```
```text
u | f
```
"""


def run(folder: Path, dsn: str, text: str) -> int:
    page = folder / "page.md"
    page.write_text(text)
    return pages.run(page, dsn, folder=folder)


def test_each_block_does_what_its_fence_says(empty: str, tmp_path: Path) -> None:
    assert run(tmp_path, empty, GOOD) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x\n```sql\nselect 1/0;\n```\n", "page.md:2"),
        ("```sql fails 22012\nselect 1;\n```\n", "was to fail"),
        ("```sql fails 22012\nselect nothing;\n```\n", "42703"),
        ("```sql\nselect 1;\n```\n```text\n2\n```\n", "the answer is\n1"),
        ("```sh run\nfalse\n```\n", "exit code 1"),
        ("```python run\nraise SystemExit(3)\n```\n", "exit code 3"),
    ],
)
def test_what_is_not_as_the_page_says_is_told_with_its_line(
    empty: str, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        run(tmp_path, empty, text)
