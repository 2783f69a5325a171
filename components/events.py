"""OpenLineage: the same facts as the manifests, for the tools that read them.

Events go to `<root>/events/` as one file each, and also to OPENLINEAGE_URL when it is set.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact

if TYPE_CHECKING:
    from components.run_step import StepContext

PRODUCER = "urn:sapiens2:pipeline"
NAMESPACE = "sapiens2"


def emit(state: str, context: StepContext, artifact: Artifact | None, *, error: BaseException | None = None) -> None:
    """Emit START, COMPLETE or FAIL of a step. A receiver that is down is a warning in the log, never a lost run."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run
    from openlineage.client.serde import Serde

    facets: dict[str, Any] = {}
    if error is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=str(error)[:2000], programmingLanguage="python"
        )
    run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{context.attempt.folder}/{context.attempt.name}"))
    event = RunEvent(
        eventType=RunState[state],
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=run_id, facets=facets),
        job=Job(namespace=NAMESPACE, name=context.step.name),
        inputs=[_input(a) for a in context.inputs.values()],
        outputs=[_output(artifact)] if artifact else [],
        producer=PRODUCER,
    )
    text = Serde.to_json(event)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    context.store.storage.write(f"events/{stamp}-{context.step.name}-{state.lower()}.json", text.encode())
    if os.environ.get("OPENLINEAGE_URL"):
        _send(event)


def _send(event: Any) -> None:
    from openlineage.client import OpenLineageClient

    try:
        OpenLineageClient().emit(event)
    except Exception as problem:  # whatever the receiver does, the manifest is the record
        print(f"OPENLINEAGE_URL did not take the event ({type(problem).__name__}: {problem}); it is under events/")


def _facets(artifact: Artifact) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    columns = next(iter(artifact.manifest.tables.values()), {})
    fields = [schema_dataset.SchemaDatasetFacetFields(name=n, type=t) for n, t in columns.items()]
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.version),
        "schema": schema_dataset.SchemaDatasetFacet(fields=fields),
    }


def _input(artifact: Artifact) -> Any:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(namespace=artifact.storage.uri, name=artifact.kind, facets=_facets(artifact))


def _output(artifact: Artifact) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=sum(entry.rows or 0 for entry in artifact.manifest.files),
        size=sum(entry.bytes for entry in artifact.manifest.files),
        fileCount=len(artifact.manifest.files),
    )
    return OutputDataset(
        namespace=artifact.storage.uri,
        name=artifact.kind,
        facets=_facets(artifact),
        outputFacets={"outputStatistics": statistics},
    )
