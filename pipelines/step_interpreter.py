"""The interpreter that steps are forked from: importing this module loads what steps need, once for a whole run.

Only pipelines.step_server has it imported, in its server. Modules are loaded and nothing of them is called: none starts
a thread or asks a device anything when it is imported (tested), which would not survive a fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import tempfile
from pathlib import Path

EXECUTOR = "kfp.dsl.executor_main"
LOADED = (
    EXECUTOR,
    "components.kfp_entry",
    "components.events",
    "openlineage.client.facet_v2",
    "cv2",
    "sapiens2.pretrain.run",
    "sapiens2.tasks.run",
    "sapiens2.evaluation.run",
    "sapiens2.evaluation.select",
    "torch._dynamo",  # the first optimizer of a process loads it
    "torch.utils.flop_counter",
)

os.environ["_KFP_RUNTIME"] = "true"  # as where KFP starts its executor: without client and compiler
gc.disable()  # most objects are modules, which live as long as the process
for name in LOADED:
    importlib.import_module(name)
gc.enable()
gc.freeze()


def nothing() -> None:
    """Where the first process ends: that it ran means that everything is loaded."""


def execute(program: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Run KFP's executor on the source of a component, in a process that was forked for it."""
    os.environ.clear()
    os.environ.update(environment, _KFP_RUNTIME="true")
    with tempfile.TemporaryDirectory(prefix="sapiens2-step-") as folder:
        module = Path(folder) / "ephemeral_component.py"
        module.write_text(program)
        sys.argv = [EXECUTOR, "--component_module_path", str(module), *arguments]
        sys.modules[EXECUTOR].executor_main()
