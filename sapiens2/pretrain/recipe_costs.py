"""What the headers of the recipes say about cost, computed as `sapiens2 plan train` computes it.

After a change of a recipe, of the model or of what a step keeps: `python -m sapiens2.pretrain.recipe_costs` writes the
rows of `recipes.py` again (minutes); tests hold the rows against the code.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sapiens2.pretrain import recipes
from sapiens2.pretrain.budget import DAY, GPUS, budget
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.memory import GIBIBYTE, Layout, Predictor
from sapiens2.pretrain.recipe_names import RECIPES

TERA = 1e12
KIND = "h200"
HEADING = "recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each"
_ROW = re.compile(rf"^    ({'|'.join(re.escape(name) for name in RECIPES)}) +\d.*$", re.MULTILINE)


def arithmetic(name: str) -> str:
    """The first part of a recipe's row: all that follows from FLOPs, for the GPUs that its plan supposes."""
    recipe = RECIPES[name]
    config, plan = recipe.make(), recipe.plan
    image = step_cost(config).total
    images = config.batch * config.engine.steps
    told = f"{name:<16}{image / TERA:>11.3g}{image * images:>11.3g}{images:>11,}" if images < 1e6 else ""
    told = told or f"{name:<16}{image / TERA:>11.3g}{image * images:>11.3g}{images / 1e6:>9.4g} M"
    if not plan.gpus:
        return f"{told}{'CPU':>7}{'':>14}"
    days = image * images / (plan.gpus * plan.mfu * GPUS[KIND].flops) / DAY
    return f"{told}{plan.gpus:>7}{plan.mfu:>6.0%}{days:>8.3g}"


def memory(name: str, predictor: Predictor | None = None) -> str:
    """The second part: images at a time on each GPU and predicted memory; `predictor` spares counting again.

    Raises ValueError where the plan of the recipe would be refused or does not fit.
    """
    recipe = RECIPES[name]
    config, plan = recipe.make(), recipe.plan
    if not plan.gpus:
        used = (predictor or Predictor(config, "cpu")).memory(Layout(images=plan.images, device="cpu")).total
        return f"{plan.images:>11}{used / GIBIBYTE:>10.2f}"
    engine = config.engine
    made = budget(
        config,
        gpu=KIND,
        gpus=plan.gpus,
        mfu=plan.mfu,
        batch_per_gpu=plan.images,
        checkpointing=engine.checkpointing,
        compiled=engine.compile,
        predictor=predictor,
    )
    if not made.fits:
        raise ValueError(f"the plan of {name} needs {made.memory.total / GIBIBYTE:.0f} GiB: fewer images at a time")
    return f"{plan.images:>11}{made.memory.total / GIBIBYTE:>10.1f}"


def row(name: str, predictor: Predictor | None = None) -> str:
    """What the header says about a recipe, under HEADING."""
    return arithmetic(name) + memory(name, predictor)


def stated(source: str) -> dict[str, str]:
    """The rows of a source file by the names of their recipes."""
    return {found[1]: found[0].strip() for found in _ROW.finditer(source)}


def written(source: str) -> str:
    """The source with every row as it is computed now."""
    return _ROW.sub(lambda found: f"    {row(found[1])}", source)


if __name__ == "__main__":
    path = Path(recipes.__file__)
    before = path.read_text()
    after = written(before)
    path.write_text(after)
    sys.stdout.write("the rows were true\n" if after == before else f"{path.name} has new rows\n")
