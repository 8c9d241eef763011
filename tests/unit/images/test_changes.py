"""Changes to an image's configuration, in a Dockerfile's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import UsageError
from pycore_images.making import changes
from pycore_images.making.words import split

BEFORE: dict[str, Any] = {"Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "Labels": {"x": "y"}, "WorkingDir": "/srv"}


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        (['CMD ["nginx", "-g"]'], {"Cmd": ["nginx", "-g"]}),
        (["CMD nginx -g 'a b'"], {"Cmd": ["/bin/sh", "-c", "nginx -g 'a b'"]}),
        (['SHELL ["/bin/bash", "-c"]', "CMD x"], {"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "x"]}),
        (['ENTRYPOINT ["/run"]'], {"Entrypoint": ["/run"], "Cmd": ...}),
        (['CMD ["a"]', 'ENTRYPOINT ["/run"]'], {"Entrypoint": ["/run"], "Cmd": ["a"]}),
        (["ENV A=2 B='c d' C=$A PATH=$PATH:/sbin"],
         {"Env": ["PATH=/bin:/sbin", "A=2", "B=c d", "C=1"]}),
        (["env D some words"], {"Env": ["PATH=/bin", "A=1", "D=some words"]}),
        (["LABEL a=b x=\"\" 'c d'=e"], {"Labels": {"x": "", "a": "b", "c d": "e"}}),
        (["EXPOSE 80 53/UDP 8000-8001"],
         {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["/a b"]'], {"Volumes": {"/a b": {}}}),
        (["WORKDIR sub/../x"], {"WorkingDir": "/srv/x"}),
        (["WORKDIR /opt"], {"WorkingDir": "/opt"}),
        (["USER ${WHO:-www}"], {"User": "www"}),
        (["STOPSIGNAL SIGQUIT"], {"StopSignal": "SIGQUIT"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["HEALTHCHECK --interval=1m30s --retries=3 CMD test -e /ok"],
         {"Healthcheck": {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 90 * 10**9, "Retries": 3}}),
        (['HEALTHCHECK CMD ["true"]'], {"Healthcheck": {"Test": ["CMD", "true"]}}),
    ],
)  # fmt: skip
def test_what_a_change_does(instructions: list[str], expected: dict[str, Any]) -> None:
    wanted = {key: value for key, value in (BEFORE | expected).items() if value is not ...}
    assert changes.apply(BEFORE, instructions) == wanted
    assert BEFORE["Env"] == ["PATH=/bin", "A=1"], "what was there before is not touched"


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("RUN make", "is no change"),
        ("CDM x", "did you mean CMD"),
        ("", "is no change"),
        ("CMD", "needs something"),
        ("ENV A", "has no value"),
        ("ENV A=1 B", "is no pair"),
        ("ENV A='x", "not closed"),
        ("EXPOSE http", "is no port"),
        ("EXPOSE 0", "is no port"),
        ("EXPOSE 9-8", "is no port"),
        ("USER a b", "takes one word"),
        ("USER $NONE", "takes one word"),
        ('VOLUME [""]', "a place that is empty"),
        ("HEALTHCHECK --interval=x CMD y", "is no option"),
        ("HEALTHCHECK sometimes", "HEALTHCHECK sometimes is none"),
        ("SHELL bash", "takes a list"),
    ],
)
def test_what_is_no_change(instruction: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        changes.apply(BEFORE, [instruction])
    assert words in f"{raised.value.message} {raised.value.hint}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"a\ b", ["a b"]),
        ("'$A' \"$A\" $A", ["$A", "1", "1"]),
        (r'"a\"b" "\n"', ['a"b', r"\n"]),
        ("''", [""]),
        ("${A}x${A:+y}${B:-z}$", ["1xyz$"]),
        ("$BLANKS", ["a b"]),
        ("\\", ["\\"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split(text, {"A": "1", "BLANKS": "a b"}) == words


@given(st.text())
def test_any_text_is_words_or_an_error(text: str) -> None:
    try:
        split(text, {})
        changes.apply(BEFORE, [f"ENV {text}"])
    except UsageError:
        pass
