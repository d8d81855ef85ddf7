"""``pglapse run``: one policy, now."""

from datetime import datetime
from typing import Annotated

import typer

from pglapse import schema
from pglapse.errors import SettingError, translated
from pglapse.text import printable


def run(
    policy: Annotated[str, typer.Argument(help="Its name, as pglapse status shows it.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="TIME",
            help="Take what was due at this time, e.g. 2026-01-31T12:00:00+01:00; not in the future.",
        ),
    ] = None,
) -> None:
    """Run one policy now, until nothing is due or its time is up.

    \b
    Examples:
      pglapse run expire_coupons
      pglapse run expire_coupons --as-of 2026-01-31T00:00:00Z
    """
    moment = _moment(as_of)
    with schema.opened("grant_runner") as conn:
        said: list[str] = []
        conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        with translated():
            conn.execute("call lapse.run(%s::text, %s::timestamptz)", [policy, moment])
    for line in said:
        typer.echo(printable(line, 500))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(
            f"--as-of: not a time: {printable(text)!r}", hint="for example 2026-01-31T12:00:00+01:00"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()
