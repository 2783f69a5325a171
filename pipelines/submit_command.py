"""`sapiens2 submit`: compile, check, send to a KFP server, and follow if asked."""

from __future__ import annotations

import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.chosen_settings import refuse_retry, settings_of
from pipelines.cli_options import recipe_options, retry_option, settings_options, unseen_root_option

if TYPE_CHECKING:
    from components.settings import Settings

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("pipeline")
@click.option("--host", envvar="KF_PIPELINES_ENDPOINT", required=True, help="URL of KFP [$KF_PIPELINES_ENDPOINT].")
@click.option("--pool", help="Folder, URL list, .tar, .parquet or s3:// prefix that the cluster's steps can read.")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="An input other than the latest.")
@click.option("--param", "explicit", multiple=True, metavar="NAME=VALUE", help="A parameter of the pipeline, as it is.")
@click.option("--placement", type=click.Path(), help="YAML: where each step runs, and on what (docs/cluster.md).")
@click.option("--experiment", default="sapiens2", show_default=True, help="KFP experiment; made when it is not there.")
@click.option("--run-name", help="Default: the pipeline and the time.")
@click.option("--kfp-cache/--no-kfp-cache", "caching", default=None, help="KFP's own cache; default off, ours decides.")
@click.option("--pipeline-root", help="Where KFP keeps manifests and pages; default as the server is set up.")
@click.option("--namespace", help="Profile namespace of a multi-user KFP.")
@click.option("--service-account", help="Kubernetes service account of the steps.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless it succeeded.")
@click.option("--follow", is_flag=True, help="Wait, and print each step's state as it changes.")
@click.option("--poll", type=click.FloatRange(0.05), default=5.0, show_default=True, help="Seconds between looks.")
@click.option("--cron", help="Recurring instead of once: six fields, seconds first, like '0 0 3 * * *'.")
@click.option("--every", help="Recurring instead of once, by interval: 30m, 12h, 1d.")
@retry_option
@unseen_root_option
@recipe_options
@settings_options
def submit(
    pipeline: str,
    host: str,
    pool: str | None,
    given: tuple[str, ...],
    explicit: tuple[str, ...],
    placement: str | None,
    experiment: str,
    run_name: str | None,
    caching: bool | None,
    pipeline_root: str | None,
    namespace: str | None,
    service_account: str | None,
    wait: bool,
    follow: bool,
    poll: float,
    cron: str | None,
    every: str | None,
    root: str,
    **chosen: Any,
) -> None:
    """Submit curation, training, full or stage:NAME to Kubeflow Pipelines.

    A bearer token, where the server wants one, is read from KFP_EXISTING_TOKEN.
    """
    from pipelines.kfp_server import Server
    from pipelines.submission import steps_of

    refuse_retry(chosen, [step.name for step in steps_of(pipeline)])
    if cron and every:
        raise click.UsageError("--cron and --every say the same: give one")
    if (cron or every) and (wait or follow):
        raise click.UsageError("a recurring run has no end to wait for: leave out --wait and --follow")
    seconds = interval_seconds(every) if every else None
    with tempfile.TemporaryDirectory(prefix="sapiens2-submit-") as folder:
        package = Path(folder) / "pipeline.yaml"
        arguments = _prepare(package, pipeline, placement, settings_of(**chosen), root, pool, given, explicit)
        server = Server(host, namespace)
        name = run_name or f"{pipeline.replace(':', '-')} {datetime.now():%Y-%m-%d %H-%M-%S}"
        more: dict[str, Any] = {"experiment": experiment, "name": name, "caching": caching}
        more |= {"pipeline_root": pipeline_root, "service_account": service_account}
        if cron or every:
            made = server.create_recurring_run(package, arguments, cron=cron, every_seconds=seconds, **more)
        else:
            made = server.create_run(package, arguments, **more)
    click.echo(made.url)
    if wait or follow:
        _wait(server, made.identifier, follow, poll)


def _prepare(
    package: Path,
    pipeline: str,
    placement: str | None,
    settings: Settings,
    root: str,
    pool: str | None,
    given: tuple[str, ...],
    explicit: tuple[str, ...],
) -> dict[str, Any]:
    """Compile the pipeline to `package`; the arguments of its run, checked against it. Raises ValueError."""
    from components.artifacts import Store
    from components.placement import Placements
    from components.storage import address
    from pipelines.compile import compile_pipeline
    from pipelines.run_command import code_version, given_inputs, pool_path
    from pipelines.submission import arguments_for, parse_parameters, roles_of, steps_of

    steps = steps_of(pipeline)
    settings.check(steps)
    where, local = address(root)
    inputs, parameters = given_inputs(Store(where), given) if given else {}, parse_parameters(explicit)
    roles = roles_of(steps[0], settings, where, inputs, parameters) if pipeline.startswith("stage:") else None
    compile_pipeline(pipeline, package, Placements.from_yaml(placement) if placement else None, roles)
    arguments = arguments_for(
        package,
        settings,
        where,
        pool=pool_path(pool) if pool else None,
        given=inputs,
        explicit=parameters,
        code_version=code_version(),
        steps=steps,
    )
    if local:
        click.echo(f"note: {where} is a local path, which every step of the cluster must see as well", err=True)
    return arguments


def _wait(server: Any, run_id: str, follow: bool, poll: float) -> None:
    def tell(task: str, state: str, error: str) -> None:
        if follow:
            click.echo(f"{state.lower():>9} {task}{f': {error}' if error else ''}")

    try:
        server.wait(run_id, tell, poll)
    except KeyboardInterrupt:
        raise click.ClickException("no longer following; the run goes on") from None
    click.echo("succeeded")


def interval_seconds(text: str) -> int:
    """Seconds of `90s`, `30m`, `12h` or `1d`. Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d*)([smhd])", text)
    if not found:
        raise ValueError(f"--every {text!r} is no interval: write 90s, 30m, 12h or 1d")
    return int(found[1]) * SECONDS[found[2]]
