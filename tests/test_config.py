"""A wrong setting is one clear line, and nothing starts."""

from pathlib import Path

import pytest

from pglapse.config import load
from pglapse.errors import SettingError

GOOD = '[storage.public]\nkind = "local"\nroot = "/srv/public"\n'


def written(folder: Path, text: str | bytes, name: str = "pglapse.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_storages_are_read_in_full(tmp_path):
    named = written(tmp_path, GOOD + '[storage."with space"]\nkind="local"\nroot="/srv/x"\nprune=false\n')

    settings = load(named)

    assert settings.source == Path(named)
    assert list(settings.storages) == ["public", "with space"]
    assert settings.storages["public"].root == Path("/srv/public")
    assert settings.storages["public"].prune is True
    assert settings.storages["with space"].prune is False


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
        (GOOD + "colour = 1\n", "unknown key 'colour'; known: kind, prune, root"),
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
    ],
)
def test_a_wrong_setting_is_one_line_that_says_where_and_what(tmp_path, text, words):
    named = written(tmp_path, text)

    with pytest.raises(SettingError) as caught:
        load(named)

    assert words in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in f"{caught.value}{caught.value.hint}"
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
