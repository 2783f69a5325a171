"""The command line as a tree: what it lists is what there is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pipelines.cli import cli
from pipelines.cli_options import LazyGroup
from pipelines.user_errors import USER_ERROR, code_of, told

GROUPS = sorted(name for name, command in cli.commands.items() if isinstance(command, LazyGroup))


@pytest.mark.parametrize("name", GROUPS)
def test_a_lazy_group_lists_the_commands_that_its_module_has(name: str) -> None:
    group = cli.commands[name]
    assert isinstance(group, LazyGroup)
    context = click.Context(group)
    listed = group.list_commands(context)
    modules = [importlib.import_module(home) for home in sorted(set(group._homes.values()))]
    assert set(listed) == {command for module in modules for command in module.COMMANDS}
    assert all(isinstance(group.get_command(context, command), click.Command) for command in listed)
    assert group.get_command(context, "absent") is None


def test_every_command_says_what_it_does() -> None:
    assert {"annotate", "artifacts", "audit", "data", "models", "plan", "weights"} == set(GROUPS)
    for name, command in cli.commands.items():
        assert command.get_short_help_str() or name == "doctor", name


@pytest.mark.parametrize("name", ["", *GROUPS])
def test_the_help_of_a_group_cuts_no_sentence(name: str) -> None:
    group = cli.commands[name] if name else cli
    assert isinstance(group, click.Group)
    context = click.Context(group, terminal_width=80)
    shown = "".join(group.get_help(context).split())  # lines break at hyphens too
    for command in group.list_commands(context):
        each = group.get_command(context, command)
        first = " ".join((each.help if each and each.help else "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
        assert f"{command}{first}".replace(" ", "") in shown or command == "doctor", command


PATHS: dict[str, tuple[Callable[[Path], object], str]] = {
    "read a folder": (lambda folder: folder.read_bytes(), "folder: that is a folder"),
    "below a file": (lambda folder: (folder / "file" / "x").read_bytes(), "file/x: a file is in the way"),
    "a folder over a file": (lambda folder: (folder / "file").mkdir(), "file: something is in the way"),
    "nothing there": (lambda folder: (folder / "x").read_bytes(), "x: there is no such file"),
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_of_the_wrong_kind_is_the_users_to_mend(case: str, tmp_path: Path) -> None:
    act, expected = PATHS[case]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(OSError) as caught:
        act(tmp_path / "folder")
    assert code_of(caught.value) == USER_ERROR and expected in told(caught.value)


def test_what_nobody_can_mend_keeps_its_traceback() -> None:
    assert [code_of(error) for error in (KeyError("x"), OSError(5, "broken"), FileExistsError("no path"))] == [None] * 3
    assert told(FileNotFoundError("weights are absent: run this")) == "weights are absent: run this"
