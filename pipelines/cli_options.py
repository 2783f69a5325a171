"""What several commands of the command line share: the root, the settings, groups that import when asked."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import click

WHOLE = 1000  # characters of a first sentence; none has as many


def _reached(context: click.Context, parameter: click.Parameter, root: str) -> str:
    """Look at the bucket of a remote root before any work, without patience. Raises ValueError with the mend."""
    if "://" in root and not root.startswith("file://") and not context.resilient_parsing:
        from components.storage import Storage

        Storage(root).reach()
    return root


_ROOT: dict[str, Any] = {
    "default": lambda: os.environ.get("SAPIENS2_ROOT", "./sapiens2-root"),
    "show_default": "$SAPIENS2_ROOT, else ./sapiens2-root",
    "help": "Where artifacts live: a folder or s3://bucket/prefix.",
}
root_option = click.option("--root", callback=_reached, **_ROOT)
unseen_root_option = click.option("--root", **_ROOT)  # for who may be out of its reach, or looks by itself


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--profile, --preset, --set and --config, the same on every command that configures steps."""
    for option in (
        click.option("--set", "pairs", multiple=True, metavar="STEP.FIELD=VALUE", help="Override one setting."),
        click.option("--config", "file", type=click.Path(), help="YAML of overrides: step -> field -> value."),
        click.option("--preset", default="demo", help="Sizes: demo (minutes on two cores) or micro (seconds)."),
        click.option("--profile", default="builtin", help="Models: builtin (no download), small (ONNX, CPU), full."),
    ):
        command = option(command)
    return command


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--recipe and --init, on the commands that pretrain."""
    for option in (
        click.option("--init", help="Continue from weights: a .safetensors file, or backbone=VERSION."),
        click.option(
            "--recipe",
            default="",
            help="A pretraining recipe in place of the preset's (`sapiens2 plan train` lists them); "
            "`train finetune` also takes SIZE:release and SIZE:paper.",
        ),
    ):
        command = option(command)
    return command


retry_option = click.option(
    "--retry-failed", is_flag=True, help="Ask the addresses of a list of URLs again that failed for now."
)


class ToldWhole(click.Group):
    """Commands of which the help says all of the first sentence; click itself cuts it at the terminal's width."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(limit=WHOLE)) for name, each in found if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(ToldWhole):
    """Commands that lie in the COMMANDS of another module, which is imported when one of them is asked for.

    `elsewhere` names the module of each command that has one of its own, because it imports much.
    """

    def __init__(
        self,
        *arguments: Any,
        module: str,
        names: tuple[str, ...],
        elsewhere: Mapping[str, str] = MappingProxyType({}),
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self._homes = dict.fromkeys(names, module) | dict(elsewhere)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._homes:
            return None
        found: click.Command | None = importlib.import_module(self._homes[cmd_name]).COMMANDS.get(cmd_name)
        return found
