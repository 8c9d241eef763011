"""What the images are that an app names: asked of the plugins, once for each name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pydantic

from pycore.errors import Problem, SpecError
from pycore.hookspecs import Found, Host
from pycore.ops import Operation
from pycore.plugins import Plugins
from pycore.source.load import locate
from pycore.spec import App, Container, Process


@dataclass(frozen=True)
class Resolved:
    """An app whose containers know what they are made of."""

    app: App
    fetch: Mapping[str, Operation] = field(default_factory=dict[str, Operation])
    """What brings images here that are not, by their names: before anything else of an apply."""


def resolve(app: App, plugins: Plugins, host: Host) -> Resolved:
    """Ask for the image of every container. Raises SpecError for images that nobody knows, or that cannot be run."""
    containers: dict[str, Container] = {}
    made = replace(app, containers=containers)
    known: dict[tuple[str, str], Found | None] = {}
    problems: list[Problem] = []
    for each in app.containers.values():
        container = replace(each, app=made)
        key = (container[Process].image, container[Process].pull_policy)
        if key not in known:
            known[key], found_problems = _ask(container, plugins, host)
            problems += found_problems
        found = known[key]
        if found is None:
            continue
        try:
            containers[container.name] = container.made_of(found.image)
        except ValueError as error:
            problems.append(_cannot_be_run(container, error))
    if problems:
        raise SpecError(locate(problems, app.text, app.file))
    return Resolved(made, {found.image.name: found.fetch for found in known.values() if found and found.fetch})


def _ask(container: Container, plugins: Plugins, host: Host) -> tuple[Found | None, Iterable[Problem]]:
    scratch = replace(host, problems=[])
    found = plugins.image(container, scratch)
    problems = scratch.problems
    if found is None and not problems:
        words = f'no plugin knows what image "{container[Process].image}" is'
        problems = [Problem(("image",), words, hint="pycore plugins lists what is installed")]
    table = ("container", container.service)
    return found, [replace(problem, path=(*table, *problem.path)) for problem in problems]


def _cannot_be_run(container: Container, error: ValueError) -> Problem:
    """What an image says of itself, and cannot be: the spec's own value takes its place."""
    words = str(error)
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        words = f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
    path = ("container", container.service, "image")
    return Problem(path, f"what the image says of itself cannot be: {words}", hint="say it in the spec instead")
