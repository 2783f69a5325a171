"""`sapiens2 ablation`: arms at equal data and compute, judged by frozen probes, as an artifact."""

from __future__ import annotations

from typing import Any

import click


def run(axis: str, seeds: int, minutes: float | None, given: tuple[str, ...], root: str, settings: Any) -> None:
    """Build the configuration from the settings of pretrain and probe, run, and print the tables."""
    from components.ablation import AblationConfig, base_for, run_ablation
    from components.artifacts import Store
    from components.steps import STEPS
    from sapiens2.evaluation.config import ProbeConfig

    pretrain = settings.config(STEPS["pretrain"]).model_copy(update={"workers": 0})
    chosen = settings.config(STEPS["probe"])
    probe = ProbeConfig(**{name: getattr(chosen, name) for name in ProbeConfig.model_fields})
    config = AblationConfig(
        axis=axis,  # type: ignore[arg-type]
        seeds=seeds,
        pretrain=base_for(axis, pretrain),  # type: ignore[arg-type]
        probe=probe,
        minutes=minutes,
    )
    store = Store(root)
    store.storage.ensure_writable()
    artifacts = {artifact.kind: artifact for artifact in map(store.find, given)}
    outcome = run_ablation(config, store, artifacts)
    _show(outcome)


def _show(outcome: Any) -> None:
    from sapiens2.evaluation.ablation.report import text

    told = outcome.artifact.manifest.metrics
    rows = [
        [
            d["probe"],
            f"{d['arm']} - {d['reference']}",
            *(f"{d[k]:+.4f}" for k in ("value", "low", "high")),
            d["verdict"],
        ]
        for d in told["differences"]
    ]
    click.echo(text(["probe", "error of", "difference", "low", "high", "verdict"], rows))
    for note in told["notes"]:
        click.echo(f"note: {note}")
    state = "reused" if outcome.reused else f"made in {outcome.seconds:.0f} s"
    click.echo(f"{outcome.artifact} {state}: {told['headline']}")
