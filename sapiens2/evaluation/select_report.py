"""What the selection of a checkpoint has to show: scores along the run, the choice, its test results, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sapiens2.engine import report
from sapiens2.evaluation.candidates import Probed
from sapiens2.evaluation.config import SelectionConfig
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.probe import METRIC, FittedProbe, ProbeResult
from sapiens2.evaluation.probe_scenes import SEMANTIC, ProbeScenes
from sapiens2.evaluation.semantic_probe import nearest

Array = np.ndarray
NEIGHBOURS = 5
GAP = 4  # pixels between the query and its neighbours
WIDE_PX = 640
PEOPLE = 24


def selection_fragment(
    config: SelectionConfig,
    probed: Sequence[Probed],
    chosen: Probed,
    results: Sequence[ProbeResult],
    tested: Sequence[FittedProbe],
) -> dict[str, Any]:
    """The fragment. `results` and `tested`: the chosen checkpoint on the test scenes, then others to compare with."""
    sections = [
        {"type": "text", "title": "Choice", "body": _why(config, probed, chosen, results[0])},
        _candidates(config, probed, chosen, tested[0].scenes),
        *(_curves(probed) if len(probed) > 1 else ()),
        _test(config, results, tested[0].scenes),
    ]
    if config.pictures:
        sections += [_neighbours(tested, config.pictures), _people(tested[0])]
    return {"title": "Frozen probe", "sections": sections}


def _why(config: SelectionConfig, probed: Sequence[Probed], chosen: Probed, result: ProbeResult) -> str:
    name, score = chosen.candidate.name, chosen.result.score
    seen = f"On {config.n_test} test scenes its score is {result.score:.3f}."
    if chosen.candidate.step is None:
        return f"Imported weights leave nothing to choose; their validation score is {score:.3f}. {seen}"
    if len(probed) == 1:
        return f"Only the last checkpoint was probed; its validation score is {score:.3f}. {seen}"
    last = next(each.result.score for each in probed if each.candidate.name == "last")
    against = "" if name == "last" else f", against {last:.3f} of the last"
    return (
        f"Of {len(probed)} checkpoints, {name} (trained for {chosen.candidate.step} steps) has the highest score on "
        f"{config.n_val} validation scenes, {score:.3f}{against}, and is tagged best-val. The score is the mean over "
        f"the dense tasks of the share of the mean map's error that a light decoder on the frozen features removes. "
        f"No test scene took part in the choice. {seen}"
    )


def _pictures(config: SelectionConfig, scenes: ProbeScenes, split: str) -> str:
    """How well the pictures themselves do as albedo, as a sentence: more than the mean map, and nothing learned."""
    if "albedo" not in config.tasks:
        return ""
    return f" The picture itself, taken as albedo, has {METRIC['albedo']} {scenes.picture(split):.3f} on these scenes."


def _candidates(
    config: SelectionConfig, probed: Sequence[Probed], chosen: Probed, scenes: ProbeScenes
) -> report.Section:
    keys = list(probed[0].result.estimates)
    rows = []
    for each in probed:
        name = each.candidate.name + (" (chosen)" if each is chosen else "")
        step = "" if each.candidate.step is None else each.candidate.step
        rows.append([name, step, f"{each.result.score:.3f}"])
        rows[-1] += [each.result.estimates[key].text() for key in keys]
    rows.append(["mean of the fitted labels", "", "0.000", *(f"{probed[0].result.baseline[key]:.3f}" for key in keys)])
    return {
        "type": "table",
        "title": "Checkpoints on validation scenes",
        "columns": ["checkpoint", "steps", "score", *(f"{key} ({METRIC[key.partition('.')[0]]})" for key in keys)],
        "rows": rows,
        "note": f"95 % intervals over {config.rounds} resamples of {config.n_val} scenes; one training seed."
        + _pictures(config, scenes, "val"),
    }


def _curves(probed: Sequence[Probed]) -> list[report.Section]:
    """Gains of the dense tasks, and the questions to single vectors, over the steps of the run."""
    steps = [each.candidate.step for each in probed]
    keys = list(probed[0].result.estimates)
    score = {"name": "score", "x": steps, "y": [each.result.score for each in probed]}
    gains = [{"name": key, "x": steps, "y": [each.result.gain(key) for each in probed]} for key in keys if key in MAIN]
    told = [
        {"name": key, "x": steps, "y": [each.result.main[key] for each in probed]} for key in keys if key not in MAIN
    ]
    lines = {"type": "lines", "x_label": "step"}
    return [
        lines | {"title": "Dense probes along the run", "y_label": "gain over the mean map", "series": [score, *gains]},
        lines | {"title": "Single vectors along the run", "y_label": "accuracy, R2 or PCK", "series": told},
    ]


def _test(config: SelectionConfig, results: Sequence[ProbeResult], scenes: ProbeScenes) -> report.Section:
    ours = results[0]
    rows = [
        [key, METRIC[key.partition(".")[0]], *(r.estimates[key].text() for r in results), f"{ours.baseline[key]:.3f}"]
        for key in ours.estimates
    ]
    rows.append(["score", "", *(f"{result.score:.3f}" for result in results), "0.000"])
    return {
        "type": "table",
        "title": "Test scenes",
        "columns": ["probe", "metric", *(result.backbone for result in results), "mean of the fitted labels"],
        "rows": rows,
        "note": f"{config.n_test} scenes. Dense tasks: poses, patterns and backgrounds of families never fitted on. "
        "Pose class, colours, keypoints: fitted poses in patterns and backgrounds never fitted on. One decoder and one "
        "recipe for every backbone. normal in degrees, pointmap in canonical units at the best scale."
        + _pictures(config, scenes, "test"),
    }


def _neighbours(tested: Sequence[FittedProbe], count: int) -> report.Section:
    """Test scenes, each beside the fitted scenes whose class vectors are nearest; a row for each backbone."""
    scenes, name = tested[0].scenes, SEMANTIC["test"]
    queries, known = scenes.images(name)[:count], scenes.images("fit")
    asked, classes = scenes.classes(name), scenes.classes("fit")
    orders = [nearest(fitted.queries(queries), fitted.vectors["cls"], NEIGHBOURS)[0] for fitted in tested]
    items = []
    for row, query in enumerate(queries):
        gap = np.full((len(query), GAP, 3), 255, np.uint8)
        strips, same = [], []
        for order, fitted in zip(orders, tested, strict=True):
            strips += [np.concatenate([query, gap, *(known[k] for k in order[row])], axis=1)]
            strips += [np.full((GAP, strips[0].shape[1], 3), 255, np.uint8)]
            same.append(f"{fitted.extractor.name} {sum(classes[k] == asked[row] for k in order[row])}")
        caption = f"{asked[row].replace('_', ' ')}; of {orders[0].shape[1]}, share the pose: {', '.join(same)}"
        items.append((np.concatenate(strips[:-1]), caption))
    rows = f" Rows from above: {', '.join(fitted.extractor.name for fitted in tested)}." if tested[1:] else ""
    note = "Left a scene in looks never fitted on; then the fitted scenes that are nearest by cosine, nearest first."
    return report.pictures("Nearest neighbours by the class vector", items, note + rows, max_side=WIDE_PX)


def _people(fitted: FittedProbe) -> report.Section:
    """A contact sheet of the synthetic people that are probed on."""
    drawn = fitted.scenes.images("fit")[:PEOPLE]
    return report.pictures(
        "Synthetic people", [(image, "") for image in drawn], "Scenes that the probes are fitted on."
    )
