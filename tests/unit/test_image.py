"""What an image says of running it, where the spec leaves it open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycore.image import Image, ImageConfig
from pycore.plugins import Plugins, load_plugins
from pycore.source.load import load_source
from pycore.spec import Container, Process, signal_number
from pycore_isolation.user import User
from pycore_supervision.health import Health


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins()


CONFIG = ImageConfig(
    entrypoint=("/entry",),
    command=("serve",),
    environment={"PATH": "/bin", "MODE": "image"},
    user="nginx",
    working_dir="/srv",
    volumes=("/data",),
    ports=("80/tcp",),
    stop_signal="SIGQUIT",
    healthcheck={"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 7},
    labels={"vendor": "image", "kind": "web"},
)


def made(plugins: Plugins, config: ImageConfig = CONFIG, **table: Any) -> Container:
    source = {"container": {"web": {"image": "nginx"} | table}}
    container = load_source(source, directory=Path("/"), plugins=plugins).containers["web"]
    return container.made_of(Image("docker.io/library/nginx:latest", "sha256:1", "sha256:2", ("/l",), config))


def test_an_image_says_what_the_spec_leaves_open(plugins: Plugins) -> None:
    container = made(plugins)
    process = container[Process]
    assert process.argv == ("/entry", "serve")
    assert process.environment == {"PATH": "/bin", "MODE": "image"}
    assert (process.working_dir, process.stop_signal) == ("/srv", "SIGQUIT")
    assert process.labels == {"vendor": "image", "kind": "web"}
    assert container[User].user == "nginx"
    health = container[Health]
    assert (health.shell, health.interval, health.retries, health.timeout) == ("true", "5000ms", 7, "30s")


def test_the_spec_goes_first(plugins: Plugins) -> None:
    container = made(
        plugins,
        environment={"MODE": "spec"},
        working_dir="/",
        stop_signal="SIGTERM",
        labels={"vendor": "spec"},
        isolation={"user": "0"},
        health={"command": ["ask"]},
    )
    process = container[Process]
    assert process.environment == {"PATH": "/bin", "MODE": "spec"}
    assert process.labels == {"vendor": "spec", "kind": "web"}
    assert (process.working_dir, process.stop_signal) == ("/", "SIGTERM")
    assert container[User].user == "0"
    assert (container[Health].command, container[Health].shell, container[Health].retries) == (("ask",), None, 3)


@pytest.mark.parametrize(
    ("table", "argv"),
    [
        ({"command": ["other"]}, ("/entry", "other")),
        ({"entrypoint": ["/mine"]}, ("/mine",)),  # the image's command was meant for the image's entrypoint
        ({"entrypoint": ["/mine"], "command": ["x"]}, ("/mine", "x")),
    ],
)
def test_entrypoint_and_command(plugins: Plugins, table: dict[str, Any], argv: tuple[str, ...]) -> None:
    assert made(plugins, **table)[Process].argv == argv


@pytest.mark.parametrize(
    "check", [None, {}, {"Test": []}, {"Test": ["NONE"]}, {"Test": ["CMD"]}, {"Interval": 1_000_000_000}]
)
def test_an_image_that_asks_nothing(plugins: Plugins, check: dict[str, Any] | None) -> None:
    health = made(plugins, ImageConfig(healthcheck=check))[Health]
    assert (health.command, health.shell) == ((), None)


def test_a_health_check_of_the_image_is_turned_off_in_the_spec(plugins: Plugins) -> None:
    assert made(plugins, health={"enabled": False})[Health].shell is None


def test_times_of_the_spec_for_the_check_of_the_image(plugins: Plugins) -> None:
    health = made(plugins, health={"interval": "1s"})[Health]
    assert (health.shell, health.interval, health.retries) == ("true", "1s", 7)


@pytest.mark.parametrize(
    "config",
    [
        ImageConfig(user="no user\n:"),
        ImageConfig(working_dir="relative"),
        ImageConfig(stop_signal="SIGNONE"),
        ImageConfig(environment={"A": "nul\0"}),
        ImageConfig(command=("",)),
        ImageConfig(healthcheck={"Test": ["CMD", "x"], "Interval": 1 << 62}),
    ],
)
def test_what_an_image_cannot_mean(plugins: Plugins, config: ImageConfig) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        made(plugins, config)


@pytest.mark.parametrize(
    ("user", "found"), [("web", "web"), ("7:8", "7:8"), ("web:", "web"), (":8", "0:8"), (":", "0"), ("", "0")]
)
def test_users_as_docker_reads_them(plugins: Plugins, user: str, found: str) -> None:
    assert made(plugins, ImageConfig(user=user))[User].user == found


@pytest.mark.parametrize(
    ("word", "number"), [("SIGRTMIN+3", 37), ("rtmax-1", 63), ("SIGRTMIN", 34), ("SIGQUIT", 3), ("TERM", 15), ("9", 9)]
)
def test_signals_as_docker_reads_them(plugins: Plugins, word: str, number: int) -> None:
    assert signal_number(made(plugins, ImageConfig(stop_signal=word))[Process].stop_signal) == number


@pytest.mark.parametrize("word", ["RTMIN+0", "RTMIN+31", "RTMAX+1", "RTMIN-1", "RTMIN+", "SIGSIGTERM", "0", "65", ""])
def test_what_is_no_signal(word: str) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signal_number(word)


def test_an_image_of_a_container_says_what_that_was_run_with(plugins: Plugins) -> None:
    assert made(plugins).into_image() == CONFIG
    changed = made(
        plugins,
        command=["other"],
        environment={"MODE": "spec"},
        working_dir="/",
        labels={"vendor": "spec"},
        isolation={"user": "7:8"},
        health={"command": ["ask"], "interval": "1.5s"},
    ).into_image()
    assert (changed.entrypoint, changed.command) == (("/entry",), ("other",))
    assert changed.environment == {"PATH": "/bin", "MODE": "spec"}
    assert (changed.user, changed.working_dir, changed.stop_signal) == ("7:8", "", "SIGQUIT")
    assert changed.healthcheck == {"Test": ["CMD", "ask"], "Interval": 1_500_000_000}
    assert changed.labels == {"vendor": "spec", "kind": "web"}
    assert (changed.volumes, changed.ports) == (("/data",), ("80/tcp",))


@pytest.mark.parametrize(
    ("health", "check"),
    [
        ({"enabled": False}, {"Test": ["NONE"]}),
        ({"http": ":80/"}, CONFIG.healthcheck),
        ({"shell": "x", "retries": 5}, {"Test": ["CMD-SHELL", "x"], "Retries": 5}),
    ],
)
def test_what_docker_can_ask(plugins: Plugins, health: dict[str, Any], check: dict[str, Any]) -> None:
    assert made(plugins, health=health).into_image().healthcheck == check


def test_a_record_keeps_it_whole() -> None:
    image = Image("n", "sha256:1", "sha256:2", ("/upper", "/lower"), CONFIG)
    assert Image.from_json(json.loads(json.dumps(image.to_json()))) == image
    assert Image.from_json(json.loads(json.dumps(Image().to_json()))) == Image()
