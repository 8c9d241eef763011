"""Reading specs: what comes of a good one, and every message for a bad one, as the user sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycore.errors import SpecError, UsageError
from pycore.source.load import MAX_FILE, load_file, load_source, load_text
from pycore.source.render import render
from pycore.spec import App, Process
from support.toys import Net, Wired, toys

PLUGINS = toys()
ENVIRONMENT = {"IMAGE": "host", "EMPTY": ""}


def load(text: str | bytes, file: str = "app.toml") -> App:
    return load_text(text, file=file, directory=Path("/srv/shop"), plugins=PLUGINS, environment=ENVIRONMENT)


def complaint(text: str | bytes) -> str:
    with pytest.raises(SpecError) as caught:
        load(text)
    return render(caught.value.problems)


# -- a good one --------------------------------------------------------------------------------------


def test_a_spec_becomes_an_app_with_sections_of_the_chosen_drivers() -> None:
    app = load(
        """
        name = "shop"

        [container.web]
        image = "${IMAGE}"
        command = ["echo", "$$HOME", "$HOME"]
        environment.TZ = "UTC"

        [container.web.network]
        ports = ["8080:80"]

        [container.db]
        image = "host"
        network = { driver = "host" }

        [network.backend]
        """
    )
    web, db = app.containers["web"], app.containers["db"]
    assert (app.name, web.full_name) == ("shop", "shop/web")
    assert web[Process].image == "host"
    assert web[Process].command == ("echo", "$HOME", "$HOME")
    assert web[Process].environment == {"TZ": "UTC"}
    assert web[Wired].ports == ("8080:80",)
    assert web.drivers == {"network": "bridge"}
    assert db.drivers == {"network": "host"}
    assert Wired not in db
    assert app.tables["network"]["backend"][Net].subnet is None


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("app.toml", "shop"),
        ("web.toml", "web"),
        ("my web+db.toml", "my-web-db"),
        ("_.toml", "app"),
        ("é.toml", "app"),
        (f"{'x' * 80}.toml", "x" * 63),
        ("dir/sub/app.toml", "shop"),
    ],
)
def test_without_a_name_the_app_is_called_as_its_file_or_directory(file: str, name: str) -> None:
    assert load("container.a.image = 'host'", file).name == name


def test_an_app_can_be_made_again_from_its_source() -> None:
    app = load("name = 'x'\n[container.a]\nimage = '${IMAGE}'\nnetwork.ports = ['1:2']\n[network.n]")
    assert load_source(app.source, directory=app.directory, plugins=PLUGINS) == app


@pytest.mark.parametrize(
    ("word", "driver", "network"),
    [("host", "host", None), ("bridge", "bridge", "default"), ("back", "bridge", "back")],
)
def test_a_word_stands_for_a_table(word: str, driver: str, network: str | None) -> None:
    app = load(f'[network.back]\n[container.web]\nimage = "host"\nnetwork = "{word}"')
    container = app.containers["web"]
    assert container.drivers == {"network": driver}
    assert (container[Wired].network if Wired in container else None) == network
    assert load_source(app.source, directory=Path("/srv/shop"), plugins=PLUGINS) == app


def test_tables_have_drivers_too() -> None:
    assert load('container.a.image = "host"\n[network.n]').table_drivers == {"network": {"n": "bridge"}}


def test_a_section_makes_its_container_depend_on_others() -> None:
    text = '[network.db]\n[container.db]\nimage = "host"\n[container.web]\nimage = "host"\nnetwork = "db"'
    app = load(text)
    assert app.containers["web"][Process].depends_on == {"db": "started"}
    assert app.containers["db"][Process].depends_on == {}
    said = load(f'{text}\ndepends_on.db = "completed"')
    assert said.containers["web"][Process].depends_on == {"db": "completed"}


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    text = "\N{BYTE ORDER MARK}name = 'x'\r\n[container.a]\r\nimage = 'host'\r\n".encode()
    assert load(text).containers["a"][Process].image == "host"


def test_a_file_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_file(tmp_path / "none.toml", PLUGINS, {})
    with pytest.raises(UsageError, match="Is a directory"):
        load_file(tmp_path, PLUGINS, {})


def test_a_file_is_read_with_its_directory(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text("container.a.image = 'host'")
    app = load_file(file, PLUGINS, {})
    assert (app.name, app.directory, app.file) == ("web", tmp_path, str(file))


# -- bad ones ----------------------------------------------------------------------------------------

BAD = {
    "unknown key, mistyped": (
        '[container.web]\nimage = "host"\n[container.web.network]\nprots = ["8080:80"]',
        """\
app.toml:4:1: unknown key "prots" in [container.web.network]
    prots = ["8080:80"]
    ^
    did you mean "ports"?""",
    ),
    "known key in the wrong table": (
        '[container.web]\nimage = "host"\nports = ["8080:80"]',
        """\
app.toml:3:1: unknown key "ports" in [container.web]
    ports = ["8080:80"]
    ^
    it belongs in [container.web.network]""",
    ),
    "mistyped key in the wrong table": (
        '[container.web]\nimage = "host"\nmemmory = "1G"',
        """\
app.toml:3:1: unknown key "memmory" in [container.web]
    memmory = "1G"
    ^
    did you mean "memory" in [container.web.resources]?""",
    ),
    "key of another driver": (
        '[container.web]\nimage = "host"\n[container.web.network]\ndriver = "host"\n\tports = ["8080:80"]',
        """\
app.toml:5:2: "ports" belongs to the bridge driver; this container uses host
    \tports = ["8080:80"]
    \t^
    choose it with driver = "bridge\"""",
    ),
    "unknown driver, and its keys are left alone": (
        '[container.web]\nimage = "host"\nnetwork = { driver = "brige", ports = [] }',
        """\
app.toml:3:22: no network driver "brige"; there are bridge, host
    network = { driver = "brige", ports = [] }
                         ^
    did you mean "bridge"?""",
    ),
    "broken driver": (
        '[container.web]\nimage = "host"\nnetwork.driver = "macvlan"',
        """\
app.toml:3:18: the network driver "macvlan" could not be loaded: ImportError: no module named 'macvlan'
    network.driver = "macvlan"
                     ^""",
    ),
    "driver of a wrong type": (
        '[container.web]\nimage = "host"\nnetwork.driver = ["bridge"]',
        """\
app.toml:3:18: driver: must be a string, not an array
    network.driver = ["bridge"]
                     ^""",
    ),
    "types": (
        '[container.web]\nimage = 80\ncommand = "true"\nworking_dir = "srv"\n'
        'resources = { memory = "lots", cpus = 0, pids = 1.5 }',
        """\
app.toml:2:9: image: must be a string, not 80
    image = 80
            ^
app.toml:3:11: command: must be an array, not "true"
    command = "true"
              ^
    write it as ["true"]
app.toml:4:15: working_dir: must be an absolute path in the container, starting with /
    working_dir = "srv"
                  ^
app.toml:5:24: memory: must be a size such as "64M" or "1.5G"
    resources = { memory = "lots", cpus = 0, pids = 1.5 }
                           ^
app.toml:5:39: cpus: must be greater than 0
    resources = { memory = "lots", cpus = 0, pids = 1.5 }
                                          ^
app.toml:5:49: pids: must be an integer, not 1.5
    resources = { memory = "lots", cpus = 0, pids = 1.5 }
                                                    ^""",
    ),
    "choices and unions": (
        '[container.web]\nimage = "host"\n[container.web.resources]\nlevel = "middle"\n'
        "either = { a = true, b = { x = 1 }, c = { x = 1, y = 2, z = 3 } }",
        """\
app.toml:4:9: level: must be "low" or "high", not "middle"
    level = "middle"
            ^
app.toml:5:16: either.a: must be an integer or a table, not true
    either = { a = true, b = { x = 1 }, c = { x = 1, y = 2, z = 3 } }
                   ^
app.toml:5:22: [container.web.resources.either.b] needs "y"
    either = { a = true, b = { x = 1 }, c = { x = 1, y = 2, z = 3 } }
                         ^
app.toml:5:57: unknown key "z" in [container.web.resources.either.c]
    either = { a = true, b = { x = 1 }, c = { x = 1, y = 2, z = 3 } }
                                                            ^""",
    ),
    "inside arrays and tables": (
        '[container.web]\nimage = "host"\ncommand = ["a", 7]\nenvironment = { "A=B" = "x", C = 3 }',
        """\
app.toml:3:17: command[1]: must be a string, not 7
    command = ["a", 7]
                    ^
app.toml:4:17: environment."A=B": a variable's name is not empty and has no = in it
    environment = { "A=B" = "x", C = 3 }
                    ^
app.toml:4:34: environment.C: must be a string, not 3
    environment = { "A=B" = "x", C = 3 }
                                     ^""",
    ),
    "missing key": (
        "[container.web.network]\n[container.web]",
        """\
app.toml:2:12: [container.web] needs "image"
    [container.web]
               ^""",
    ),
    "no container": (
        "name = 'x'",
        """\
app.toml:1:1: no container: a spec has at least one [container.NAME] table
    name = 'x'
    ^""",
    ),
    "empty": ("", "app.toml:1:1: no container: a spec has at least one [container.NAME] table"),
    "top level": (
        'nmae = "x"\nimage = "host"\ncontainer.a.image = "host"\nnetwork = 3\n[container."b c"]\nimage = "host"',
        """\
app.toml:1:1: unknown key "nmae" at the top of the file
    nmae = "x"
    ^
    did you mean "name"?
app.toml:2:1: unknown key "image" at the top of the file
    image = "host"
    ^
    it belongs in [container.NAME]
app.toml:4:11: [network] must be a table, not 3
    network = 3
              ^
app.toml:5:12: "b c" cannot be a name: up to 63 letters, digits, _ . and -, a letter or digit first
    [container."b c"]
               ^""",
    ),
    "containers and areas that are no tables": (
        "name = 7\n[container]\na = 1\nb = { image = 'host', network = [] }",
        """\
app.toml:1:8: name: must be a string, not 7
    name = 7
           ^
app.toml:3:1: [container.a] needs "image"
    a = 1
    ^
app.toml:3:5: [container.a] must be a table, not 1
    a = 1
        ^
app.toml:4:33: [container.b.network] must be a table, not an array
    b = { image = 'host', network = [] }
                                    ^""",
    ),
    "a word that stands for nothing": (
        "[container.b]\nimage = 'host'\nnetwork = 'B:b'",
        """\
app.toml:3:11: network: "B:b" stands for nothing; drivers are bridge, host
    network = 'B:b'
              ^""",
    ),
    "network with a driver of its own": (
        'container.a.image = "host"\n[network.n]\ndriver = "host"\nsubnett = ""',
        """\
app.toml:3:10: no network driver "host"; there is bridge
    driver = "host"
             ^
app.toml:4:1: unknown key "subnett" in [network.n]
    subnett = ""
    ^
    did you mean "subnet"?""",
    ),
    "variables": (
        '[container.web]\nimage = "${IMAGE}:${TAG}"\ncommand = ["${EMPTY:?say what to run}", "${1}"]\n'
        'working_dir = "${DIR-/srv}"',
        """\
app.toml:2:19: variable TAG is not set
    image = "${IMAGE}:${TAG}"
                      ^
    give a default with "${TAG:-value}", or write "$${TAG}" to leave it to the container
app.toml:3:13: variable EMPTY is not set: say what to run
    command = ["${EMPTY:?say what to run}", "${1}"]
                ^
app.toml:3:42: ${ does not begin a variable here
    command = ["${EMPTY:?say what to run}", "${1}"]
                                             ^
    write "${NAME}" or "${NAME:-default}", and "$${" for a plain "${\"""",
    ),
    "variables do not hide other problems": (
        '[container.web]\nimage = "${TAG}"\nworking_dir = 1',
        """\
app.toml:2:10: variable TAG is not set
    image = "${TAG}"
             ^
    give a default with "${TAG:-value}", or write "$${TAG}" to leave it to the container
app.toml:3:15: working_dir: must be a string, not 1
    working_dir = 1
                  ^""",
    ),
    "what a plugin finds in the whole": (
        '[container.web]\nimage = "host"\nnetwork.network = "back"',
        """\
app.toml:3:19: no such network
    network.network = "back"
                      ^
    declare it""",
    ),
    "syntax": (
        '[container.web]\nimage = "host',
        """\
app.toml:2:14: not valid TOML: unterminated string
    image = "host
                 ^""",
    ),
    "a table twice": (
        "[container.web]\n[container.web]",
        """\
app.toml:2:15: [container.web] is there twice
    [container.web]
                  ^""",
    ),
    "a key twice": (
        "[container.web]\nimage = 'a'\nimage = 'b'",
        """\
app.toml:3:12: a key is there twice: the value before this place is its second
    image = 'b'
               ^""",
    ),
    "dates, infinities and huge numbers": (
        "[container.web]\nimage = 2020-01-01\nresources = { cpus = inf, pids = 0x10000000000000000 }",
        """\
app.toml:2:9: dates and times have no meaning in a spec; put it in quotes if a string is meant
    image = 2020-01-01
            ^
app.toml:3:22: must be a finite number
    resources = { cpus = inf, pids = 0x10000000000000000 }
                         ^
app.toml:3:34: a number has too many digits
    resources = { cpus = inf, pids = 0x10000000000000000 }
                                     ^""",
    ),
    "NUL inside": (
        '[container.web]\nimage = "a\\u0000b"',
        """\
app.toml:2:9: image: must not contain a NUL character
    image = "a\\u0000b"
            ^""",
    ),
    "not UTF-8": (
        b'[container.web]\nimage = "\xff"',
        """\
app.toml:2:10: not a UTF-8 text
    image = "\N{REPLACEMENT CHARACTER}
             ^""",
    ),
    "half a character": (
        "name = '\ud800'",
        """\
app.toml:1:9: not a UTF-8 text
    name = '\N{REPLACEMENT CHARACTER}
            ^""",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_what_the_user_sees(text: str | bytes, expected: str) -> None:
    assert complaint(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"#" * (MAX_FILE + 1), "app.toml:1:1: the file is larger than 1 MiB, the limit for a spec"),
        (f"a = {'[' * 100_000}", "app.toml:1:1: tables or arrays are nested too deeply"),
        (f"{'a.' * 100_000}a = 1", "app.toml:1:1: tables or arrays are nested too deeply"),
        (f"x = 1\n[{'.'.join('a' * 40)}]", "app.toml:2:1: tables or arrays are nested too deeply"),
        (f"x = 1\na = {'1' * 5000}", "app.toml:2:5: a number has too many digits"),
    ],
    ids=["large", "brackets", "dots", "header", "digits"],
)
def test_what_is_beyond_measure_is_refused(text: str | bytes, message: str) -> None:
    assert complaint(text).splitlines()[0] == message


def test_nesting_below_the_parsers_limit_is_refused_at_its_place() -> None:
    with pytest.raises(SpecError) as caught:
        load(f"a = {'[' * 300}{']' * 300}")
    assert (1, 36) in [(problem.line, problem.column) for problem in caught.value.problems]


def test_a_file_of_mistakes_has_an_end() -> None:
    text = "container.a.image = 'host'\n" + "\n".join(f"k{number} = 1" for number in range(50_000))
    with pytest.raises(SpecError) as caught:
        load(text)
    assert len(caught.value.problems) == 500
    assert all(problem.line for problem in caught.value.problems)


def test_a_line_nobody_wrote_by_hand_is_not_shown() -> None:
    with pytest.raises(SpecError) as caught:
        load(f"x = {{ a = '{'y' * 100_000}' }}")
    assert all(problem.source == "" for problem in caught.value.problems)


def test_problems_survive_the_way_through_json() -> None:
    with pytest.raises(SpecError) as caught:
        load("[container.web]\nimage = 80")
    again = SpecError.from_fields(caught.value.to_json())
    assert again.problems == caught.value.problems
