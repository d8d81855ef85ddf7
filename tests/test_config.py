"""A wrong setting is one clear line, and nothing starts."""

from pathlib import Path

import pytest

from pglapse.config import load
from pglapse.errors import SettingError
from pglapse.storage.s3.settings import S3Settings

GOOD = '[storage.public]\nkind = "local"\nroot = "/srv/public"\n'
S3 = '[storage.x]\nkind = "s3"\nbucket = "uploads"\n'


def written(folder: Path, text: str | bytes, name: str = "pglapse.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_storages_are_read_in_full(tmp_path):
    named = written(
        tmp_path, GOOD + '[storage."with space"]\nkind="local"\nroot="/srv/x"\nprune=false\nmarker=false\n'
    )

    settings = load(named)

    assert settings.source == Path(named)
    assert list(settings.storages) == ["public", "with space"]
    assert settings.storages["public"].root == Path("/srv/public")
    assert settings.storages["public"].prune is True
    assert settings.storages["public"].marker is True
    assert settings.storages["with space"].prune is False
    assert settings.storages["with space"].marker is False


def test_a_bucket_is_read_in_full(tmp_path):
    more = (
        'prefix = "up"\nendpoint_url = "https://minio.example.org:9000"\nregion = "eu-west-1"\n'
        'profile = "files"\nversions = "purge"\nbatch_size = 100\naddressing = "virtual"\n'
    )

    plain = load(written(tmp_path, S3)).storages["x"]
    full = load(written(tmp_path, S3 + more)).storages["x"]

    assert plain == S3Settings("x", "uploads")
    assert full == S3Settings(
        name="x",
        bucket="uploads",
        prefix="up/",
        endpoint_url="https://minio.example.org:9000",
        region="eu-west-1",
        profile="files",
        versions="purge",
        batch_size=100,
        addressing="virtual",
    )


def test_the_option_wins_over_the_variable_and_both_over_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, GOOD.replace("public", "here"))
    variable = written(tmp_path, GOOD.replace("public", "variable"), "variable.toml")
    option = written(tmp_path, GOOD.replace("public", "option"), "option.toml")

    assert list(load(None, {}).storages) == ["here"]
    assert list(load(None, {"PGLAPSE_CONFIG": variable}).storages) == ["variable"]
    assert list(load(option, {"PGLAPSE_CONFIG": variable}).storages) == ["option"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no storage"),
        ("[storage]\n", "names no storage"),
        ("storage = 3\n", "storages are tables"),
        ("[storage]\npublic = 3\n", "storages are tables"),
        ("[[storage]]\n", "storages are tables"),
        ("[storage.public\n", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (GOOD + "[storag.x]\n", "unknown 'storag'; did you mean storage?"),
        (GOOD + 'rot = "/x"\n', "storage.public: unknown key 'rot'; did you mean root?"),
        (GOOD + "colour = 1\n", "unknown key 'colour'; known: kind, marker, prune, root"),
        (GOOD.replace('kind = "local"\n', ""), "storage.public: kind is missing"),
        (GOOD.replace('"local"', '"ftp"'), "storage.public: unknown kind 'ftp'"),
        (GOOD.replace('"local"', "3"), "unknown kind 3"),
        (GOOD.replace('"local"', '["local"]'), "unknown kind ['local']"),
        (GOOD.replace('root = "/srv/public"\n', ""), "storage.public: root is missing"),
        (GOOD.replace('"/srv/public"', '"uploads"'), "must be an absolute path, not 'uploads'"),
        (GOOD.replace('"/srv/public"', '""'), "root must be the path of a folder"),
        (GOOD.replace('"/srv/public"', "7"), "root must be the path of a folder"),
        (GOOD.replace('"/srv/public"', '"/a\\u0000b"'), "root must be the path of a folder"),
        (GOOD.replace('"/srv/public"', '"/"'), "can't be the whole file system"),
        (GOOD.replace('"/srv/public"', '"/srv/.."'), "can't be the whole file system"),
        (GOOD + 'prune = "no"\n', "prune must be true or false"),
        (GOOD.replace("storage.public", 'storage.""'), "name of a storage can't be empty"),
        ('[storage.x]\nkind = "s3"\n', 'storage.x: bucket is missing (bucket = "uploads")'),
        (S3 + "buckte = 1\n", "unknown key 'buckte'; did you mean bucket?"),
        (S3 + "colour = 1\n", "unknown key 'colour'; known: addressing, batch_size, bucket"),
        (S3 + 'root = "/srv"\n', "unknown key 'root'"),
        (S3 + 'aws_access_key_id = "AKIA"\n', "storage.x: credentials don't belong into this file"),
        (S3 + 'secret_key = "hush"\n', "credentials don't belong"),
        (S3 + 'session_token = "hush"\n', "credentials don't belong"),
        (S3.replace("uploads", "s3://uploads"), "'s3://uploads' can't be the name of a bucket"),
        (S3.replace("uploads", "uploads/images"), "can't be the name of a bucket"),
        (S3.replace("uploads", "a\\nb"), "bucket must be text on one line"),
        (S3.replace('"uploads"', "3"), "bucket must be text on one line"),
        (S3 + "prefix = 3\n", "prefix must be text"),
        (S3 + 'prefix = "/up"\n', "prefix: it begins with a slash"),
        (S3 + 'prefix = "up//"\n', "prefix: it contains two slashes in a row"),
        (S3 + 'prefix = "up/../"\n', "prefix: the path contains '.' or '..'"),
        (S3 + 'prefix = "a\\tb/"\n', "prefix: it contains a character that can't be printed"),
        (S3 + 'endpoint_url = "minio:9000"\n', "endpoint_url must be a URL of http or https"),
        (S3 + 'endpoint_url = "https://"\n', "endpoint_url must be a URL of http or https"),
        (S3 + 'endpoint_url = "http://x:99999"\n', "endpoint_url must be a URL of http or https"),
        (S3 + 'endpoint_url = "https://me:hush@x"\n', "endpoint_url must not hold a name or a password"),
        (S3 + 'endpoint_url = "https://x/?a=b"\n', "endpoint_url must end with the host or a path"),
        (S3 + 'region = ""\n', "region must be text on one line, and not empty"),
        (S3 + "profile = 3\n", "profile must be text on one line, and not empty"),
        (S3 + 'versions = "keep"\n', "versions must be one of refuse, marker, purge, not 'keep'"),
        (S3 + "versions = 1\n", "versions must be one of refuse, marker, purge, not 1"),
        (S3 + "versions = []\n", "versions must be one of refuse, marker, purge, not []"),
        (S3 + "batch_size = 0\n", "batch_size must be a number from 1 to 1,000"),
        (S3 + "batch_size = 1001\n", "batch_size must be a number from 1 to 1,000"),
        (S3 + "batch_size = true\n", "batch_size must be a number from 1 to 1,000"),
        (S3 + 'addressing = "dns"\n', "addressing must be one of auto, path, virtual, not 'dns'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_where_and_what(tmp_path, text, words):
    named = written(tmp_path, text)

    with pytest.raises(SettingError) as caught:
        load(named)

    assert words in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    assert "hush" not in f"{caught.value}{caught.value.hint}"
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_says_who_named_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SettingError, match=r"no configuration file x\.toml \(from --config\)"):
        load("x.toml", {})
    with pytest.raises(SettingError, match=r"y\.toml \(from PGLAPSE_CONFIG\)"):
        load(None, {"PGLAPSE_CONFIG": "y.toml"})
    with pytest.raises(SettingError, match=r"no configuration file pglapse\.toml$") as caught:
        load(None, {})
    assert "--config" in caught.value.hint


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path):
    with pytest.raises(SettingError, match="can't read the configuration file"):
        load(str(tmp_path))
