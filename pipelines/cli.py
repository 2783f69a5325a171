"""The `sapiens2` command line. Imports are lazy: `sapiens2 --help` loads nothing heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from pipelines.chosen_settings import backbone_anywhere, refuse_cold_start, refuse_retry, settings_of, tuned
from pipelines.cli_options import LazyGroup, ToldWhole, recipe_options, retry_option, root_option, settings_options
from pipelines.user_errors import INTERRUPTED, USER_ERROR, code_of, say, told

PACKAGES = ("components", "pipelines", "curation", "sapiens2")
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # it would look through every installed package for some

TASK = click.Choice(["pose", "segmentation", "normal", "pointmap", "albedo"])


@click.group(cls=ToldWhole, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="sapiens2")
def cli() -> None:
    """From a web pool of pictures to human-centric vision models."""


@cli.command()
@click.option("--pool", help="Folder, URL list, .tar, .parquet or s3:// prefix. Default: a sample pool made here.")
@click.option("--only", type=click.Choice(["curation", "training"]), help="Run half of the pipeline.")
@click.option("--dry-run", is_flag=True, help="Say what is reused, what reruns and why; run nothing.")
@retry_option
@root_option
@recipe_options
@settings_options
def run(pool: str | None, only: str | None, dry_run: bool, root: str, **chosen: Any) -> None:
    """Run the whole pipeline here: curate, pretrain, fine-tune five tasks, evaluate, report."""
    from pipelines.run_command import run_pipeline

    refuse_retry(chosen, () if only == "training" else ("ingest",))
    run_pipeline(pool, root, settings_of(**chosen), only=only, dry_run=dry_run)


@cli.command()
@click.argument("name")
@click.option("--pool", help="For ingest: the pool of pictures.")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="An input other than the latest.")
@click.option("--dry-run", is_flag=True, help="Say whether it would run and why; run nothing.")
@retry_option
@root_option
@settings_options
def step(name: str, pool: str | None, given: tuple[str, ...], dry_run: bool, root: str, **chosen: Any) -> None:
    """Run one stage on the latest inputs, which are printed."""
    from pipelines.run_command import run_one

    refuse_retry(chosen, (name,))
    run_one(name, pool, given, root, settings_of(**chosen), dry_run=dry_run)


@cli.command()
@click.argument("pipeline")
@click.option("--out", type=click.Path(), help="Where the IR goes; default PIPELINE.yaml.")
@click.option("--placement", type=click.Path(), help="YAML: where each step runs, and on what (docs/cluster.md).")
def compile(pipeline: str, out: str | None, placement: str | None) -> None:
    """Compile curation, training, full or stage:NAME to KFP IR YAML."""
    from components.placement import Placements
    from pipelines.compile import compile_pipeline

    placements = Placements.from_yaml(placement) if placement else None
    click.echo(compile_pipeline(pipeline, Path(out or f"{pipeline.replace(':', '-')}.yaml"), placements))


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(arguments: tuple[str, ...]) -> None:
    """Submit curation, training, full or stage:NAME to Kubeflow Pipelines; recurring if asked."""
    from pipelines.submit_command import submit as command

    command.main(list(arguments), prog_name="sapiens2 submit", standalone_mode=False)


@cli.command()
@click.argument("target", type=click.Choice(["pretrain", "finetune"]))
@click.option("--task", type=TASK, help="For finetune.")
@click.option("--backbone", help="For finetune: somebody else's, timm:NAME[:FILE] or hf:NAME[:FILE].")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="An input other than the latest.")
@click.option("--dry-run", is_flag=True, help="Say whether it would run and why; run nothing.")
@root_option
@recipe_options
@settings_options
def train(
    target: str,
    task: str | None,
    backbone: str | None,
    given: tuple[str, ...],
    dry_run: bool,
    root: str,
    **chosen: Any,
) -> None:
    """Train from the artifacts under the root; also the entry point of `ray job submit -- sapiens2 train ...`."""
    from pipelines.run_command import run_one

    if (target == "finetune") != bool(task):
        raise click.UsageError("finetune needs --task, pretrain takes none")
    if target == "pretrain":
        refuse_cold_start(chosen)
    elif chosen["init"]:
        raise click.UsageError("--init is for pretrain; finetune starts from --input backbone=VERSION")
    if backbone and not task:
        raise click.UsageError("--backbone is for finetune; pretraining trains our own")
    tuning = chosen.pop("recipe") if task and ":" in chosen["recipe"] else ""
    settings = settings_of(**chosen)
    if task:
        settings = tuned(settings, task, tuning, backbone)
    run_one(f"finetune-{task}" if task else target, None, given, root, settings, dry_run=dry_run)


@cli.command()
@click.option("--each", is_flag=True, help="Every kept checkpoint, to choose one; without it only the last.")
@click.option("--backbone", "compare", multiple=True, help="Measure beside it: timm:NAME, hf:NAME or a FILE.")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="A backbone other than the latest.")
@click.option("--table", "tables", multiple=True, type=click.Path(), help="A .csv or .tex to write; may be repeated.")
@click.option("--beside", multiple=True, metavar="evaluation=VERSION", help="Rows of another probe in that table.")
@root_option
@settings_options
def probe(
    each: bool,
    compare: tuple[str, ...],
    given: tuple[str, ...],
    tables: tuple[str, ...],
    beside: tuple[str, ...],
    root: str,
    **chosen: Any,
) -> None:
    """Probe the frozen backbone: five tasks, pose classes, colours; tag the best checkpoint best-val."""
    from dataclasses import replace

    from pipelines.evaluate_command import run_probe

    settings = settings_of(**chosen)
    beside_it = [backbone_anywhere(name) for name in compare]
    own = {"probe.checkpoints": "each" if each else "last", "probe.compare": beside_it}
    settings = replace(settings, overrides=own | dict(settings.overrides))
    run_probe(given, tables, beside, root, settings)


@cli.command()
@click.argument("task")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="A checkpoint other than the latest.")
@click.option("--table", "tables", multiple=True, type=click.Path(), help="A .csv or .tex to write; may be repeated.")
@click.option("--beside", multiple=True, metavar="evaluation=VERSION", help="Another row of that table.")
@root_option
@settings_options
def evaluate(
    task: str, given: tuple[str, ...], tables: tuple[str, ...], beside: tuple[str, ...], root: str, **chosen: Any
) -> None:
    """Evaluate the latest model of a task on held-out people, or on labelled data."""
    from pipelines.evaluate_command import run_evaluate

    run_evaluate(task, given, tables, beside, root, settings_of(**chosen))


@cli.command()
@click.argument("task", type=TASK)
@click.option("--images", required=True, help="Folder, picture, video, .tar, .parquet or list of URLs.")
@click.option("--out", required=True, help="Where the answers go: a folder or s3://bucket/prefix.")
@click.option("--checkpoint", help="A .safetensors file, the folder of a run, or an artifact; default latest of TASK.")
@click.option("--size", help="Of weights that do not say it: tiny, 0.1b, 0.4b, 0.8b, 1b or 5b.")
@click.option("--people", help="A segmentation checkpoint or artifact: maps then hold on people's pixels only.")
@click.option("--detector", type=click.Choice(["builtin", "small", "full"]), help="Default builtin.")
@click.option("--boxes", help="A .json, .csv or .parquet of person boxes, or `none`: every picture whole.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="Detector score of a person.")
@click.option("--keypoint-score", type=float, default=0.3, show_default=True, help="Keypoints below are not drawn.")
@click.option("--image-size", nargs=2, type=click.IntRange(16), metavar="H W", help="Default: that of the training.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="People per forward pass.")
@click.option("--device", help="Default cuda if there is one, else cpu.")
@click.option("--flip-test", "flip", is_flag=True, help="Mean over each person and its mirror image, for every task.")
@click.option("--no-overlays", is_flag=True, help="Write data only.")
@click.option("--ray", is_flag=True, help="Spread over the Ray at RAY_ADDRESS, or over a local one.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="With --ray.")
@click.option("--gpus", type=click.FloatRange(0), default=0.0, show_default=True, help="With --ray: of each worker.")
@root_option
def predict(**options: Any) -> None:
    """Predict on pictures or a video: overlays to look at, and data at the pictures' own size."""
    from pipelines.predict_command import run_predict

    sys.exit(run_predict(**options))


@cli.command()
@click.argument("task", type=click.Choice(["pose", "segmentation", "normal", "pointmap", "albedo", "backbone"]))
@click.option("--out", required=True, type=click.Path(), help="The .onnx file to write.")
@click.option("--checkpoint", help="A .safetensors file, the folder of a run, or an artifact; default latest of TASK.")
@click.option("--size", help="Of weights that do not say it: tiny, 0.1b, 0.4b, 0.8b, 1b or 5b.")
@click.option("--image-size", nargs=2, type=click.IntRange(8), metavar="H W", help="Default: that of the training.")
@root_option
def export(**options: Any) -> None:
    """Write a model as ONNX, checked against onnxruntime; a file that does not agree is not written."""
    from pipelines.export_command import run_export

    run_export(**options)


@cli.command()
@click.option(
    "--axis", type=click.Choice(["objective", "curation", "attention", "architecture", "crops"]), required=True
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each arm.")
@click.option("--minutes", type=float, help="Stop after so long; the same command continues.")
@click.option("--input", "given", multiple=True, metavar="KIND=VERSION", help="An input other than the latest.")
@root_option
@settings_options
def ablation(axis: str, seeds: int, minutes: float | None, given: tuple[str, ...], root: str, **chosen: Any) -> None:
    """Compare arms at equal data and compute: the objective, the curation, the attention or the architecture.

    The run is that of `pretrain`, the judges are those of `probe`: --set pretrain.FIELD and probe.FIELD change them.
    """
    from pipelines.ablation_cli import run as run_arms

    run_arms(axis, seeds, minutes, given, root, settings_of(**chosen))


@cli.command(
    cls=LazyGroup,
    module="pipelines.artifacts_cli",
    names=("list", "show", "lineage", "why", "trained-on", "diff", "verify", "tag", "gc"),
    elsewhere={"forget": "pipelines.forget_command"},
)
def artifacts() -> None:
    """Look at what lies under the root, and ask it questions."""


@cli.command()
@click.option("--out", required=True, help="Where the table goes: a folder or s3://bucket/prefix.")
@click.option("--input", "reference", default="selection", help="A version other than the latest: selection=VERSION.")
@click.option("--all", "dropped", is_flag=True, help="Also the pictures that were dropped, with the reason.")
@root_option
def release(out: str, reference: str, dropped: bool, root: str) -> None:
    """A selection without its pictures: addresses, hashes, scores, decisions, licences."""
    from pipelines.release_commands import run_release

    run_release(out, reference, dropped, root)


@cli.command()
@click.argument("release")
@click.option("--out", required=True, help="Where the pictures go: a folder or s3://bucket/prefix.")
@click.option("--retry", is_flag=True, help="Ask again for what failed before.")
@settings_options
def rehydrate(release: str, out: str, retry: bool, **chosen: Any) -> None:
    """Fetch the pictures of a release, or of any Parquet file with url and sha256; keep only the very bytes.

    Fetching obeys the settings of ingest (--set ingest.fetch_per_host=2). The same command goes on after a kill.
    """
    from pipelines.release_commands import run_rehydrate

    run_rehydrate(release, out, retry, settings_of(**chosen))


@cli.command(cls=LazyGroup, module="pipelines.audit_cli", names=("sample", "calibrate", "rates"))
def audit() -> None:
    """Label a sample, set thresholds by it, see whom the filter drops."""


@cli.command(
    cls=LazyGroup,
    module="pipelines.plan_cli",
    names=("train", "finetune"),
    elsewhere={"curate": "pipelines.plan_curate"},
)
def plan() -> None:
    """Cost, time and memory before anything is spent."""


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def doctor(arguments: tuple[str, ...]) -> None:
    """What works on this machine; `doctor train` measures pretraining on it."""
    from pipelines.doctor_cli import doctor as command

    command.main(list(arguments), prog_name="sapiens2 doctor", standalone_mode=False)


@cli.command(cls=LazyGroup, module="pipelines.weights_cli", names=("import", "export"))
def weights() -> None:
    """Backbone and task weights: take in released ones, write ours for other programs."""


@cli.command(cls=LazyGroup, module="pipelines.models_cli", names=("list", "verify"))
def models() -> None:
    """Third-party networks: which are known, where they are found, whether their bytes are right."""


@cli.command(cls=LazyGroup, module="pipelines.data_cli", names=("check", "import", "export", "render"))
def data() -> None:
    """Labelled data: check a folder, bring other formats in, take labels out."""


@cli.command(cls=LazyGroup, module="pipelines.annotate_cli", names=("export", "import"))
def annotate() -> None:
    """Have pictures of the selection labelled: out to COCO, CVAT or Label Studio, and the labels back."""


def refuse_shadowing(folder: Path) -> None:
    """Raises ValueError when a folder of the caller's would be imported instead of one of ours."""
    home = Path(__file__).resolve().parents[1]  # not what `import` finds: under `python -m` that is the caller's
    for name in PACKAGES:
        candidate = folder / name
        ours = home / name
        if (candidate.is_dir() or candidate.with_suffix(".py").is_file()) and not ours.is_relative_to(folder.resolve()):
            raise ValueError(
                f"{candidate} has the name of one of our packages and would be imported in its place: "
                "run from another folder, or rename it"
            )


def main() -> None:
    """Entry point: what the user can mend is one line and exit code 2, everything else a traceback."""
    try:
        refuse_shadowing(Path.cwd())
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(USER_ERROR)
    except Exception as error:
        code = code_of(error)
        if code is None:
            raise
        say(str(error) if code == INTERRUPTED else f"error: {told(error)}", error)
        sys.exit(code)


if __name__ == "__main__":
    main()
