"""ONNX networks on the CPU: one session per process, a stated number of threads, the same result in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class BrokenOutput(ValueError):
    """A network answered NaN or infinity: thresholds on it would silently find nothing."""


class OnnxSession:
    """A network from a file, opened at its first run, so that it travels to workers as a path.

    threads: intra-op threads; more make one run faster, not the sum of several workers.
    Raises ValueError when the file is not a network onnxruntime can run.
    """

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        self.path = str(path)
        self.threads = threads
        self._session: InferenceSession | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "threads": self.threads, "_session": None}

    @property
    def session(self) -> InferenceSession:
        if self._session is None:
            self._session = self._open()
        return self._session

    @property
    def input_names(self) -> list[str]:
        return [node.name for node in self.session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        return [node.name for node in self.session.get_outputs()]

    def _open(self) -> InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the exporters of public networks leave warnings nobody can act on
        # Idle workers would otherwise spin and take the core from the decoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise ValueError(f"{self.path} is not an ONNX network that can be run here: {error}") from error

    def run(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in the order of `output_names`, for the one input `x`. Raises BrokenOutput for NaN, infinity."""
        return self._checked(self._run(x))

    def _run(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        return list(self.session.run(None, {self.input_names[0]: np.ascontiguousarray(x)}))

    def _checked(self, outputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        for name, values in zip(self.output_names, outputs, strict=True):
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                raise BrokenOutput(
                    f"the network {self.path} gave NaN or infinity ({name}); check its weights and input"
                )
        return outputs

    def run_fixed(self, x: NDArray[Any], batch: int) -> list[NDArray[Any]]:
        """All outputs for `x` [N, ...], run in batches of exactly `batch` rows, the last one padded with zeros.

        Kernels are chosen by shape, so a row's bits may depend on how many rows travel with it; a fixed shape keeps
        a fresh result equal to a remembered one. Raises BrokenOutput for NaN or infinity in a row of `x`.
        """
        parts: list[list[NDArray[Any]]] = []
        for start in range(0, len(x), batch):
            rows = x[start : start + batch]
            padding = np.zeros((batch - len(rows), *x.shape[1:]), dtype=x.dtype)
            outputs = self._run(np.concatenate([rows, padding]))
            parts.append(self._checked([out[: len(rows)] for out in outputs]))
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
