"""The command line as a tree: what it lists is what there is."""

from __future__ import annotations

import importlib

import click
import pytest

from pipelines.cli import cli
from pipelines.cli_options import LazyGroup

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
