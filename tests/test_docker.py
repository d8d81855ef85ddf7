"""docker/: what can be judged without an engine, and, where one answers, the real thing."""

import configparser
import inspect
import os
import re
import secrets
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pglapse.commands.worker import worker as worker_command
from tests.support import compose, container
from tests.support.install import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile.postgres", "Dockerfile.worker")
PYTHON_BASE = "PGLAPSE_TEST_PYTHON_BASE_IMAGE"
SECRET = re.compile(r"passw|secret|token|credential|private_?key|api_?key", re.IGNORECASE)
PATIENCE = 90.0  # seconds that anything in a container may take


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The file as (INSTRUCTION, arguments): comments dropped, continued lines joined."""
    lines = (DOCKER / dockerfile).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.strip().partition(" ") for line in text.splitlines())
        if word
    ]


def of(dockerfile: str, kind: str) -> list[str]:
    """The arguments of every instruction of one kind."""
    return [rest for word, rest in instructions(dockerfile) if word == kind]


def storages() -> dict[str, str]:
    """Name and root of each storage in docker/pglapse.toml."""
    tables = tomllib.loads((DOCKER / "pglapse.toml").read_text(encoding="utf-8"))["storage"]
    return {name: table["root"] for name, table in tables.items()}


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_does_not_run_as_root(dockerfile: str) -> None:
    last = of(dockerfile, "USER")[-1]

    assert last.split(":")[0] not in {"", "root", "0"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_says_how_to_tell_that_it_is_well(dockerfile: str) -> None:
    (check,) = of(dockerfile, "HEALTHCHECK")

    assert "CMD" in check
    assert "NONE" not in check


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_takes_its_base_as_an_argument(dockerfile: str) -> None:
    first, *_ = instructions(dockerfile)

    assert first[0] == "ARG"
    assert re.fullmatch(r"BASE=(postgres|python):\d\S*", first[1]), "an official image with its version"
    assert {rest.split(" ")[0] for rest in of(dockerfile, "FROM")} == {"${BASE}"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_an_image_fetches_nothing_but_packages(dockerfile: str) -> None:
    assert of(dockerfile, "ADD") == []
    for command in of(dockerfile, "RUN"):
        assert not re.search(r"\b(curl|wget|git clone)\b|https?://", command)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_no_secret_is_baked_into_an_image(dockerfile: str) -> None:
    for assignment in of(dockerfile, "ENV") + of(dockerfile, "ARG"):
        assert not SECRET.search(assignment)
    for copied in of(dockerfile, "COPY"):
        assert not SECRET.search(copied)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_package_lists_do_not_stay_in_an_image(dockerfile: str) -> None:
    for command in of(dockerfile, "RUN"):
        if "apt-get install" in command:
            assert "--no-install-recommends" in command
            assert "rm -rf /var/lib/apt/lists" in command


def test_everything_that_an_image_copies_is_there() -> None:
    for source in (copied.split()[0] for copied in of("Dockerfile.postgres", "COPY")):
        assert (DOCKER / source).is_file()
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    for source in (copied.split()[0] for copied in of("Dockerfile.worker", "COPY")):
        if source not in {".", "--from=build"}:
            assert (ROOT / source).is_file()
            assert source in allowed


def test_the_worker_s_build_sees_no_file_that_it_does_not_need() -> None:
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"
    ]

    assert first == "*", "everything is left out, then let in by name"
    assert not any(SECRET.search(line) for line in rest)


@pytest.mark.parametrize("script", ["init-pg_cron.sh", "entrypoint.sh"])
def test_a_script_parses_and_may_be_executed(script: str) -> None:
    path = DOCKER / script
    shell = path.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]

    subprocess.run([shell, "-n", str(path)], check=True)

    assert os.access(path, os.X_OK)


def test_the_entrypoint_reads_the_password_from_its_file_and_becomes_the_command(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("two words\n", encoding="utf-8")

    with subprocess.Popen(
        [DOCKER / "entrypoint.sh", "sh", "-c", 'printf "%s|%s" "$PGPASSWORD" "$$"'],
        env={"PATH": os.environ["PATH"], "PGPASSWORD_FILE": str(tmp_path / "password")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=30)

    assert said == f"two words|{process.pid}", "the same process: signals reach the command"


def test_the_entrypoint_fails_when_the_password_can_t_be_read() -> None:
    done = subprocess.run(
        [DOCKER / "entrypoint.sh", "true"],
        env={"PATH": os.environ["PATH"], "PGPASSWORD_FILE": "/nowhere"},
        capture_output=True,
        check=False,
    )

    assert done.returncode != 0


def test_compose_starts_the_server_then_installs_then_starts_the_worker() -> None:
    services = compose.parsed()["services"]

    assert list(services) == ["postgres", "install", "worker"]
    assert services["install"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {"install": {"condition": "service_completed_successfully"}}
    assert services["install"]["restart"] == "no"
    assert services["postgres"]["restart"] == services["worker"]["restart"] == "unless-stopped"


def test_compose_builds_our_images_and_overrides_neither_user_nor_health_check() -> None:
    services = compose.parsed()["services"]

    for service in services.values():
        context = (DOCKER / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).is_file()
        assert "user" not in service
    assert "healthcheck" not in services["postgres"]
    assert "healthcheck" not in services["worker"]


def test_compose_takes_away_what_a_service_does_not_need() -> None:
    for service in compose.parsed()["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "ports", "cap_add", "network_mode", "pid"} & set(service)


def test_compose_holds_no_password_only_the_files_that_do() -> None:
    document = compose.parsed()

    for service in document["services"].values():
        for name, value in service["environment"].items():
            if SECRET.search(name):
                assert name.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            assert "://" not in str(value)
        assert set(service["secrets"]) <= set(document["secrets"])
    for secret in document["secrets"].values():
        assert set(secret) == {"file"}
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_worker_never_learns_the_superuser_s_password() -> None:
    worker = compose.parsed()["services"]["worker"]

    assert worker["secrets"] == ["worker_password"]
    assert worker["environment"]["PGUSER"] != "postgres"


def test_every_storage_is_a_volume_that_the_worker_s_user_owns() -> None:
    document = compose.parsed()
    mounted = dict(volume.split(":")[::-1] for volume in document["services"]["worker"]["volumes"])
    (folders,) = [command for command in of("Dockerfile.worker", "RUN") if "install -d" in command]

    assert set(mounted) == set(storages().values())
    assert set(mounted.values()) <= set(document["volumes"])
    for root in storages().values():
        assert root in folders
    assert "install -d -o 10001 -g 10001" in folders
    assert of("Dockerfile.worker", "USER")[-1] == "10001:10001"


def unit_settings() -> dict[str, str]:
    """Section Service of the systemd unit."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DOCKER / "pglapse-worker.service", encoding="utf-8")
    return dict(unit["Service"])


def test_the_unit_gives_the_worker_its_storages_and_nothing_else() -> None:
    service = unit_settings()

    assert service["User"] not in {"", "root"}
    assert service["ReadWritePaths"].split() == list(storages().values())
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["KillSignal"] == "SIGTERM"
    assert service["RestartPreventExitStatus"] == "2"
    assert not any(SECRET.search(value) for value in service.values())


def test_the_unit_hears_from_the_worker_and_gives_it_the_time_that_it_needs() -> None:
    service = unit_settings()

    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["TimeoutStartSec"] == "infinity", "a database that is away is waited for"
    assert service["WatchdogSec"] == "2min"
    assert "AF_UNIX" in service["RestrictAddressFamilies"], "the way to systemd"


def test_whoever_stops_a_worker_has_more_patience_than_the_worker() -> None:
    grace = inspect.signature(worker_command).parameters["grace"].default
    to_hand_in = 15

    given = [
        unit_settings()["TimeoutStopSec"],
        compose.parsed()["services"]["worker"]["stop_grace_period"],
    ]

    assert all(float(seconds.removesuffix("s")) >= grace + to_hand_in for seconds in given), given


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed here")
    unit = (DOCKER / "pglapse-worker.service").read_text(encoding="utf-8")
    program = shutil.which("true") or "/bin/true"
    copy = tmp_path / "pglapse-worker.service"
    copy.write_text(re.sub(r"(?m)^ExecStart=.*", f"ExecStart={program}", unit), encoding="utf-8")

    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)

    assert str(copy.name) not in done.stderr
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[compose.Stack]:
    """Both images built, nothing started."""
    base = os.environ.get(PYTHON_BASE)
    try:
        postgres = container.postgres_image()
        worker = container.build(ROOT, "docker/Dockerfile.worker", "pglapse:test", base)
    except container.BuildFailed:
        raise
    except container.NoContainer as reason:
        pytest.skip(str(reason)[:500])
    folder = tmp_path_factory.mktemp("secrets")
    folder.chmod(0o755)
    passwords = {name: secrets.token_hex(16) for name in ("postgres_password", "worker_password")}
    images = {"postgres": postgres, "install": worker, "worker": worker}
    with compose.Stack(
        container.engine(), images, f"pglapse-test-{secrets.token_hex(4)}", passwords, folder
    ) as running:
        yield running


def poll(what: str, ready: Callable[[], Any], output: Callable[[], Any]) -> Any:
    """The first true answer of ``ready``; fails with ``output`` when it takes too long."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if answer := ready():
            return answer
        time.sleep(0.3)
    return pytest.fail(f"not in {PATIENCE:.0f} s: {what}\n{output()}")


def psql(postgres: Any, statement: str) -> str:
    """One statement as the superuser, inside the server's container."""
    code, output = postgres.exec_run(["psql", "-XAtq", "-U", "postgres", "-d", "app", "-c", statement])
    assert code == 0, output.decode()
    return str(output.decode().strip())


def shell(where: Any, command: str) -> str:
    """A command inside a container, as its own user."""
    code, output = where.exec_run(["sh", "-ec", command])
    assert code == 0, output.decode()
    return str(output.decode().strip())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_services_install_schedule_lapse_and_delete(stack: compose.Stack) -> None:
    def log(of: Any) -> Callable[[], str]:
        return lambda: of.logs().decode(errors="replace")[-3000:]

    postgres = stack.start("postgres")
    (told,) = of("Dockerfile.postgres", "HEALTHCHECK")
    check = told.partition("CMD ")[2]  # the image's own check, which not every engine runs
    poll("server healthy", lambda: postgres.exec_run(["sh", "-c", check])[0] == 0, log(postgres))

    for _ in range(2):  # a second `up` installs again
        install = stack.start("install")
        assert install.wait(timeout=PATIENCE)["StatusCode"] == 0, log(install)()
        install.remove()
    assert int(psql(postgres, "select count(*) from cron.job where jobname like 'lapse-%' and active")) == 2

    psql(postgres, "select lapse.alter_policy('cancel_expired_tasks', p_every => interval '10 s')")

    worker = stack.start("worker")
    healthy = ["pglapse-entrypoint", "python3", "-m", "pglapse.health"]
    poll("worker healthy", lambda: worker.exec_run(healthy)[0] == 0, log(worker))
    assert shell(worker, "id -u") == "10001"
    for name, root in storages().items():
        shell(
            worker, f"mkdir -p {root}/tasks/1 && echo {name} > {root}/tasks/1/photo.jpg && echo > {root}/kept"
        )
    psql(
        postgres,
        """
        with poster as (
            insert into market.users (email, display_name) values ('a@example.org', 'A') returning id
        ), task as (
            insert into market.tasks (poster_id, title, status, deadline)
            select id, 'Paint the fence', 'open', clock_timestamp() + interval '1 s' from poster returning id
        )
        insert into market.task_files (task_id, storage, path, bytes)
        select task.id, storage, 'tasks/1/photo.jpg', 8
          from task, unnest(array['public', 'private']) as storage
        """,
    )

    gone = "test ! -e /srv/pglapse/public/tasks && test ! -e /srv/pglapse/private/tasks"
    poll(
        "both files gone, by pg_cron's own tick",
        lambda: worker.exec_run(["sh", "-c", gone])[0] == 0,
        log(worker),
    )

    shell(worker, "test -e /srv/pglapse/public/kept && test -e /srv/pglapse/private/kept")
    assert psql(postgres, "select status, cancel_reason from market.tasks") == "cancelled|deadline"
    logged = "select string_agg(outcome, ',') from lapse.file_cleanup_log"
    poll("both logged", lambda: psql(postgres, logged) == "deleted,deleted", log(worker))

    worker.stop(timeout=30)
    assert worker.wait()["StatusCode"] == 0, log(worker)()
