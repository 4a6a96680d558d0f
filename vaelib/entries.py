"""YAML that anyone may have written: plain words, numbers, lists and mappings that know where they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from .config import InputError

# Nothing that a person writes is longer: bytes of a file, characters of a word, values of a list, lists in lists
LONGEST, LONGEST_WORD, MOST_VALUES, DEEPEST = 1 << 16, 2_000, 500, 20


class Entry(dict):
    """A mapping of the file that knows where each key stands; "" is the mapping itself."""

    def __init__(self, values: dict, where: dict[str, str]) -> None:
        super().__init__(values)
        self.where = where

    @contextmanager
    def at(self, name: str = "") -> Iterator[None]:
        """Bad input found in here gets its file and line."""
        try:
            yield
        except InputError as e:
            raise InputError(f"{self.where.get(name, self.where[''])}: {e}") from None

    def options(self, name: str) -> list:
        """A list as it is, another value as a list of one."""
        with self.at(name):
            if self[name] == []:
                raise InputError(f"{name!r} is an empty list")
            if isinstance(self[name], list) and len(self[name]) > MOST_VALUES:
                raise InputError(f"{name!r} has {len(self[name])} values; a list may have {MOST_VALUES}")
        return self[name] if isinstance(self[name], list) else [self[name]]


class _Loader(yaml.SafeLoader):
    """Mappings become `Entry`; refused are a key that stands twice, references and endless words.

    References (`*name`) would let a few lines of YAML grow to more than any memory holds.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        here = f"{self.name}, line {self.peek_event().start_mark.line + 1}"
        if self.check_event(yaml.AliasEvent):
            raise InputError(
                f"{here}: this is not YAML for a plan: references (*name) have no place there, write the value out"
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"{here}: this is nested too deep for a plan")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST_WORD:
            raise InputError(f"{here}: a word of {len(node.value)} characters has no place in a plan")
        return node

    def entry(self, node: yaml.MappingNode) -> Entry:
        where = {"": f"{self.name}, line {node.start_mark.line + 1}"}
        for key, _ in node.value:
            here, name = f"{self.name}, line {key.start_mark.line + 1}", str(key.value)
            if key.tag != "tag:yaml.org,2002:str":
                raise InputError(f"{here}: a name must be a word, not {name[:80]!r}")
            if name in where:
                raise InputError(f"{here}: {name!r} stands there twice")
            where[name] = here
        return Entry(self.construct_mapping(node, deep=True), where)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.entry)


def parsed(text: bytes | str, name: str) -> Any:
    """What a YAML text says; only words, numbers, lists and mappings, never anything that runs code.

    Args:
        name: Of the text, for messages.

    Raises:
        InputError: it is not such YAML; the message names the line.
    """
    loader = None
    try:
        loader = _Loader(text)
        loader.name = name
        return loader.get_single_data()
    except InputError:
        raise
    except Exception as e:  # PyYAML also raises what int() and the like raise of a broken value
        mark, problem = getattr(e, "problem_mark", None), getattr(e, "problem", None) or e
        problem = " ".join(str(problem).split())[:200] or type(e).__name__
        raise InputError(f"{name}, line {mark.line + 1 if mark else 1}: this is not YAML: {problem}") from None
    finally:
        if loader:
            loader.dispose()


def plain(values: Any) -> Any:
    """Mappings and lists without what they know of their place."""
    return json.loads(json.dumps(values, default=str))


def shown(value: Any) -> str:
    """A value for a message, cut short."""
    return repr(plain(value))[:200]
