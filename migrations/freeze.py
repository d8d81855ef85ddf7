"""Copy living SQL into the frozen past: ``python migrations/freeze.py [-m "what changed"]``.

A living file under ``sql/`` is the present, the only one that anybody edits. A revision runs the copy
under ``frozen/REVISION/``. This tool finds every living file that differs from its newest frozen copy
and, while that copy's revision is unreleased, copies it there afresh. Once the revision is released
(listed in ``frozen/RELEASED``) it writes the next revision instead, with both sides named. SHA256SUMS
keeps the past as it was; tests run ``check``.
"""

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIVING = HERE.parent / "sql"
FROZEN = HERE / "frozen"
SUMS = FROZEN / "SHA256SUMS"
RELEASED = FROZEN / "RELEASED"
BRANCH_OF = {"lapse": "engine", "market": "market"}


def living() -> list[str]:
    """Every living file, as KIND/SCHEMA/NAME.sql."""
    return sorted(path.relative_to(LIVING).as_posix() for path in LIVING.rglob("*.sql"))


def branch(name: str) -> str:
    """The Alembic branch that a living file belongs to, by its schema."""
    return BRANCH_OF[name.split("/")[1]]


def revisions(of: str) -> list[str]:
    """The revision ids of one branch, oldest first, by their number."""
    return sorted(
        match.group(1)
        for path in (HERE / of / "versions").glob("*.py")
        if (match := re.match(rf"({of}_\d{{4}})", path.name))
    )


def newest(name: str) -> str | None:
    """The newest revision that holds a frozen copy of ``name``."""
    holders = [revision for revision in revisions(branch(name)) if (FROZEN / revision / name).is_file()]
    return holders[-1] if holders else None


def released() -> set[str]:
    """Revisions that shipped: their copies never change again."""
    return set(RELEASED.read_text(encoding="utf-8").split()) if RELEASED.exists() else set()


def stale() -> list[str]:
    """Living files that differ from their newest frozen copy, or have none."""
    return [
        name
        for name in living()
        if (home := newest(name)) is None
        or (FROZEN / home / name).read_bytes() != (LIVING / name).read_bytes()
    ]


def orphans() -> list[Path]:
    """Frozen copies in unreleased revisions whose living file is gone."""
    return [
        path
        for path in sorted(FROZEN.glob("*/*/*/*.sql"))
        if path.relative_to(FROZEN).parts[0] not in released()
        and not (LIVING / path.relative_to(FROZEN / path.relative_to(FROZEN).parts[0])).is_file()
    ]


def sums() -> str:
    """The SHA-256 of every frozen file, in sha256sum's own format."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(FROZEN).as_posix()}\n"
        for path in sorted(FROZEN.glob("*/*/*/*.sql"))
    )


def copy(name: str, revision: str) -> None:
    """Freeze one living file under ``revision``."""
    target = FROZEN / revision / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(LIVING / name, target)


def write_revision(of: str, names: list[str], message: str) -> str:
    """Write the next revision of a branch, with copies of ``names`` and both sides named."""
    last = revisions(of)[-1]
    following = f"{of}_{int(last[-4:]) + 1:04d}"
    before = {name: newest(name) for name in names}
    for name in names:
        copy(name, following)
    ups = "".join(f'    apply("{following}", "{name}")\n' for name in names)
    downs = "".join(
        f'    apply("{home}", "{name}")\n'
        if (home := before[name])
        else f'    raise NotImplementedError("drop what {name} creates")\n'
        for name in names
    )
    slug = re.sub(r"\W+", "_", message.lower()).strip("_")[:50]
    (HERE / of / "versions" / f"{following}_{slug}.py").write_text(
        f'"""{message}\n\nRevision ID: {following}\nRevises: {last}\n"""\n\n'
        "from pglapse.replaceable import apply\n\n"
        f'revision = "{following}"\ndown_revision = "{last}"\nbranch_labels = None\ndepends_on = None\n\n\n'
        f"def upgrade() -> None:\n{ups}\n\ndef downgrade() -> None:\n{downs}",
        encoding="utf-8",
    )
    return following


def tampered() -> list[str]:
    """Frozen files of released revisions that are not what SHA256SUMS says, or not there."""
    lines = SUMS.read_text(encoding="utf-8").splitlines() if SUMS.exists() else []
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    return [
        name
        for name, digest in listed.items()
        if name.split("/")[0] in released()
        and not (
            (FROZEN / name).is_file() and hashlib.sha256((FROZEN / name).read_bytes()).hexdigest() == digest
        )
    ]


def freeze(message: str | None) -> None:
    """Bring the frozen copies up to date; exits with a hint where a new revision needs a message."""
    if changed := tampered():
        sys.exit(
            f"these were released, and a released file never changes: {', '.join(changed)}; restore them"
        )
    shipped = released()
    waiting: dict[str, list[str]] = {}
    for name in stale():
        home = newest(name) or revisions(branch(name))[-1]
        if home in shipped:
            waiting.setdefault(branch(name), []).append(name)
        else:
            copy(name, home)
            print(f"froze {name} under {home}")
    if waiting and not message:
        sys.exit(f'released files changed: {waiting}; say what changed: make freeze m="what changed"')
    for of, names in waiting.items():
        print(f"wrote {write_revision(of, names, message or '')}: {', '.join(names)}")
    for path in orphans():
        path.unlink()
        print(f"removed {path.relative_to(FROZEN)}: its living file is gone")
    SUMS.write_text(sums(), encoding="utf-8")


def check() -> list[str]:
    """What is wrong with the frozen copies; an empty list when all is well."""
    complaints = [f"sql/{name} differs from its newest frozen copy: run make freeze" for name in stale()]
    complaints += [
        f"frozen/{path.relative_to(FROZEN)} has no living file: run make freeze" for path in orphans()
    ]
    if not SUMS.exists() or SUMS.read_text(encoding="utf-8") != sums():
        complaints.append("frozen/SHA256SUMS does not match the frozen files: was a frozen file edited?")
    return complaints


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--message", help="what changed, for the new revision's title")
    freeze(parser.parse_args().message)
