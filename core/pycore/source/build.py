"""Builds an App from a tree of plain values: every key to the section that owns it, every problem collected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pydantic

from pycore.errors import PluginError, Problem
from pycore.plugins import Owner, Plugins
from pycore.source import wording
from pycore.source.alike import Made, alike
from pycore.source.layout import CONTAINER, DRIVER, Table
from pycore.spec import NAME_PATTERN, App, Container, Process, Section, Sections

MAX_PROBLEMS = 500
"""After so many, a file is not a spec with mistakes but something else."""

Tree = dict[str, Any]
Way = tuple[str | int, ...]


class Builder:
    """Makes an App of a tree, and collects what is wrong with it on the way."""

    def __init__(self, plugins: Plugins, *, alone: bool = False) -> None:
        """``alone``: what the containers refer to may be missing."""
        self.plugins, self.alone = plugins, alone
        self._alike = alike(plugins)
        self.kinds = self._alike.kinds
        self.problems: list[Problem] = []
        """What is wrong, without places, which are not known here."""

    def app(self, tree: Mapping[str, Any], directory: Path, default_name: str, file: str = "", text: str = "") -> App:
        """The App; worth having only if :attr:`problems` is empty afterwards. Raises PluginError."""
        name = self._name(tree.get("name", default_name))
        tree = self._in_full(tree)
        for key in tree:
            if key != "name" and key not in self.kinds and len(self.problems) < MAX_PROBLEMS:
                self._complain((key,), *self._stranger_at_top(key), at_key=True)
        containers: dict[str, Container] = {}
        named = {kind: self._entries(kind, tree) for kind in self.kinds}
        app = App(
            name=name,
            directory=directory,
            tables={
                kind: {each: sections for each, (_, sections) in entries.items()}
                for kind, entries in named.items()
                if kind != CONTAINER
            },
            table_drivers={
                kind: {each: drivers[kind] for each, (drivers, _) in entries.items() if kind in drivers}
                for kind, entries in named.items()
                if kind != CONTAINER
            },
            containers=containers,
            source={**tree, "name": name},
            file=file,
            text=text,
            alone=self.alone,
        )
        for service, (drivers, sections) in named[CONTAINER].items():
            for each in self._names(service, sections):
                if each in containers:
                    message = f"its replicas and [container.{each}] would have the same name"
                    self._complain((CONTAINER, service), message, at_key=True)
                containers[each] = Container(app, each, drivers, sections, service=service)
        if not self.alone:
            self._check_dependencies({service: _needs(sections) for service, (_, sections) in named[CONTAINER].items()})
        if not tree.get(CONTAINER):
            self._complain((), "no container: a spec has at least one [container.NAME] table", at_key=True)
        return app

    def _in_full(self, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """The tree with a table in each place where a container has a word instead, ``network = "host"``, and with
        all that a container depends on.
        """
        containers = tree.get(CONTAINER)
        if not isinstance(containers, dict):
            return tree
        words = [table for table in self.kinds[CONTAINER] if table.word]
        whole: Tree = {}
        for name, body in cast(Tree, containers).items():
            whole[name] = body
            if isinstance(body, dict):
                full = self._tables_for_words(name, cast(Tree, body), words)
                whole[name] = _with_needs(full, words, cast(Tree, containers))
        return {**tree, CONTAINER: whole}

    def _tables_for_words(self, name: str, body: Tree, tables: Sequence[Table]) -> Tree:
        found: Tree = {}
        for table in tables:
            word = body.get(table.word)
            if isinstance(word, str):
                meant = table.of_word(word)
                if meant is None:
                    drivers = f"; drivers are {', '.join(table.choices)}" if table.choices else ""
                    message = f"{table.word}: {wording.shown(word)} stands for nothing{drivers}"
                    self._complain((CONTAINER, name, table.word), message)
                found[table.word] = meant or {}
        return {**body, **found} if found else body

    def _names(self, service: str, sections: Sections) -> list[str]:
        """The containers that a table stands for."""
        process = sections.get(Process)
        number = process.replicas if isinstance(process, Process) else None
        if number is None:
            return [service]
        names = [f"{service}-{each}" for each in range(1, number + 1)]
        self._check_name(names[-1], (CONTAINER, service))
        return names

    def _check_dependencies(self, needs: Mapping[str, Sequence[str]]) -> None:
        """Every container that is depended on is there, and none waits for itself."""
        for name, others in needs.items():
            for other in others:
                path = (CONTAINER, name, "depends_on", other)
                if other not in needs:
                    message = f"no container {wording.shown(other)} to depend on"
                    self._complain(path, message, wording.did_you_mean(other, list(needs)), at_key=True)
                elif _leads_to(needs, other, name):
                    self._complain(path, f"{name} and {other} would wait for each other for good", at_key=True)

    def _name(self, value: Any) -> str:
        if not isinstance(value, str):
            self._complain(("name",), f"name: must be a string, not {wording.shown(value)}")
            return "app"
        self._check_name(value, ("name",), at_key=False)
        return value

    def _check_name(self, name: str, path: Way, at_key: bool = True) -> None:
        if not re.fullmatch(NAME_PATTERN, name):
            allowed = "up to 63 letters, digits, _ . and -, a letter or digit first"
            self._complain(path, f"{wording.shown(name)} cannot be a name: {allowed}", at_key=at_key)

    def _entries(self, kind: str, tree: Mapping[str, Any]) -> dict[str, tuple[dict[str, str], Sections]]:
        """Name to drivers and sections, for all ``[KIND.NAME]`` tables of a kind."""
        found: dict[str, tuple[dict[str, str], Sections]] = {}
        for name, body in self._table_at(tree, kind, ()).items():
            self._check_name(name, (kind, name))
            found[name] = self._entry(kind, name, self._table_at({name: body}, name, (kind,)))
        return found

    def _entry(self, kind: str, name: str, body: Tree) -> tuple[dict[str, str], Sections]:
        words = self._words(kind)
        own = {key: value for key, value in body.items() if key not in words}
        parts = [
            (table, self._table_at(body, table.word, (kind, name)) if table.word else own) for table in self.kinds[kind]
        ]
        drivers = {table.area: self._driver(table, values, (kind, name)) for table, values in parts if table.choices}
        sections: dict[type[Section], Section] = {}
        chosen = tuple(drivers.values())
        for table, values in parts:
            key = (table.pattern, chosen, repr(values))
            made = self._alike.made(key)
            if made is None:
                made = self._made(table, values, (kind, name), drivers)
                if not self.problems:
                    self._alike.remember(key, made)
            sections |= made
        return drivers, sections

    def _made(self, table: Table, values: Tree, path: Way, drivers: Mapping[str, str]) -> Made:
        """The sections of one table; those in which something is wrong are left out."""
        place: Way = (*path, table.word) if table.word else path
        sections: dict[type[Section], Section] = {}
        for owner in self._counting(table, drivers):
            section = self._section(owner, values, place)
            if section is not None:
                sections[owner.section] = section
        for key in values:
            if not self._knows(table, key, drivers) and len(self.problems) < MAX_PROBLEMS:
                self._complain((*place, key), *self._stranger(table, key, place, drivers), at_key=True)
        return sections

    def _table_at(self, parent: Mapping[str, Any], key: str, path: Way) -> Tree:
        """The table under a key, empty where there is none."""
        value = parent.get(key, {})
        if isinstance(value, dict):
            return cast(Tree, value)
        self._complain((*path, key), f"{wording.table_name((*path, key))} must be a table, not {wording.shown(value)}")
        return {}

    def _driver(self, table: Table, values: Tree, path: Way) -> str:
        """The driver chosen in a table. After a problem it may be one that does not exist."""
        chosen = values.get(DRIVER, table.default)
        if not isinstance(chosen, str):
            chosen = ""
            message, hint = f"{DRIVER}: must be a string, not {wording.shown(values[DRIVER])}", None
        elif chosen in table.choices:
            return chosen
        elif broken := self._broken(table.area, chosen):
            message, hint = f"the {table.area} driver {wording.shown(chosen)} could not be loaded: {broken}", None
        else:
            verb = "is" if len(table.choices) == 1 else "are"
            message = f"no {table.area} driver {wording.shown(chosen)}; there {verb} {', '.join(table.choices)}"
            hint = wording.did_you_mean(chosen, table.choices)
        self._complain((*path, table.word, DRIVER) if table.word else (*path, DRIVER), message, hint)
        return chosen

    def _broken(self, area: str, driver: str) -> str:
        """Why the plugin that probably is this driver could not be loaded."""
        return self.plugins.broken.get(f"{area}.{driver}") or self.plugins.broken.get(driver, "")

    def _counting(self, table: Table, drivers: Mapping[str, str]) -> Iterator[Owner]:
        """The owners whose sections count for the chosen drivers."""
        for owner in table.owners:
            if owner.driver is None or drivers.get(owner.driver.area, owner.driver.name) == owner.driver.name:
                yield owner

    def _section(self, owner: Owner, values: Tree, place: Way) -> Section | None:
        kind = owner.section
        mine = {key: value for key, value in values.items() if key in kind.__pydantic_fields__}
        try:
            return kind.model_validate(mine)
        except pydantic.ValidationError as error:
            for problem in wording.problems_of(error, mine, place):
                self._keep(problem)
        except Exception as error:  # a plugin's validator: anything can come out of it
            message = f"plugin {owner.plugin!r} failed to check {wording.table_name(place)}"
            raise PluginError(f"{message}: {type(error).__name__}: {error}") from error
        return None

    # -- keys that nobody knows ----------------------------------------------------------------------

    def _knows(self, table: Table, key: str, drivers: Mapping[str, str]) -> bool:
        """Whether a key may stand in a table."""
        if key == DRIVER and table.choices:
            return True
        return key in self._fields(table, drivers)

    def _fields(self, table: Table, drivers: Mapping[str, str]) -> list[str]:
        """The fields that count in a table; where the driver is a mistake itself, any driver's."""
        if table.choices and drivers[table.area] not in table.choices:
            return table.fields()
        return [name for owner in self._counting(table, drivers) for name in owner.section.model_fields]

    def _words(self, kind: str) -> list[str]:
        return [table.word for table in self.kinds[kind] if table.word]

    def _stranger(self, table: Table, key: str, place: Way, drivers: Mapping[str, str]) -> tuple[str, str | None]:
        """The message and the hint for a key that does not belong where it is."""
        owner = next((owner for owner in table.owners if key in owner.section.model_fields), None)
        if owner and owner.driver:
            area = owner.driver.area
            used = drivers[area]
            message = f"{wording.shown(key)} belongs to the {owner.driver.name} driver; this {table.kind} uses {used}"
            return message, f'choose it with driver = "{owner.driver.name}"'
        hint = self._home(table, key, place) or self._guess(table, key, place, drivers) or self._missing_plugin()
        return f"unknown key {wording.shown(key)} in {wording.table_name(place)}", hint

    def _home(self, table: Table, key: str, place: Way) -> str | None:
        """The neighbouring table in which the very key is known."""
        for other in self.kinds[table.kind]:
            if other != table and key in other.fields():
                return f"it belongs in {self._neighbour(other, place)}"
        return None

    def _guess(self, table: Table, key: str, place: Way, drivers: Mapping[str, str]) -> str | None:
        """A key that looks like it, of this table or of a neighbouring one."""
        here = [*self._fields(table, drivers), *([DRIVER] if table.choices else [])]
        hint = wording.did_you_mean(key, here if table.word else here + self._words(table.kind))
        if hint:
            return hint
        for other in self.kinds[table.kind]:
            guess = wording.likely(key, other.fields())
            if guess:
                return f"did you mean {wording.shown(guess)} in {self._neighbour(other, place)}?"
        return None

    @staticmethod
    def _neighbour(table: Table, place: Way) -> str:
        return wording.table_name((*place[:2], table.word) if table.word else place[:2])

    def _stranger_at_top(self, key: str) -> tuple[str, str | None]:
        hint = wording.did_you_mean(key, ["name", *self.kinds])
        if not hint:
            homes = (table for kind in self.kinds.values() for table in kind if key in (table.word, *table.fields()))
            home = next(homes, None)
            hint = f"it belongs in [{home.pattern.removesuffix('.' + key).replace('*', 'NAME')}]" if home else None
        return f"unknown key {wording.shown(key)} at the top of the file", hint or self._missing_plugin()

    def _missing_plugin(self) -> str | None:
        for name, reason in sorted(self.plugins.broken.items()):
            return f"plugin {name!r}, whose key it may be, could not be loaded: {reason}"
        return None

    def _complain(self, path: Way, message: str, hint: str | None = None, *, at_key: bool = False) -> None:
        self._keep(Problem(path, message, hint, at_key))

    def _keep(self, problem: Problem) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def _with_needs(body: Tree, tables: Sequence[Table], containers: Tree) -> Tree:
    """A container's table with what its other tables make it depend on, beside what it says itself."""
    found: dict[str, str] = {}
    for table in tables:
        values = body.get(table.word)
        if isinstance(values, dict):
            for owner in table.owners:
                found |= owner.section.needs(cast(Tree, values))
    found = {name: condition for name, condition in found.items() if name in containers}
    said = body.get("depends_on", {})
    return {**body, "depends_on": {**found, **said}} if found and isinstance(said, dict) else body


def _needs(sections: Sections) -> Sequence[str]:
    process = sections.get(Process)
    return list(process.depends_on) if isinstance(process, Process) else ()


def _leads_to(needs: Mapping[str, Sequence[str]], start: str, goal: str) -> bool:
    """Whether a container depends on another, by way of any number of others."""
    seen, ahead = set[str](), [start]
    while ahead:
        name = ahead.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            ahead += needs.get(name, ())
    return False
