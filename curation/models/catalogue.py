"""The third-party networks this project knows how to use: file, digest, licence, address.

The `small` entries are pinned. Most `full` ones are not, because their publishers print no sha256: the digest of the
file the user supplies is computed and recorded, and such a file is never downloaded for them (see
curation.models.weights).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_RAW = "https://raw.githubusercontent.com"
_ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download"


@dataclass(frozen=True)
class ModelSpec:
    """One weight file. `sha256` None: pinned by the user's own file, whose digest is computed and recorded.

    `path` is a file that a configuration names outright; it is used instead of any search.
    """

    name: str
    filename: str
    sha256: str | None
    licence: str
    address: str | None
    revision: str
    path: str | None = None

    def at(self, path: str) -> ModelSpec:
        """The same model from a file of the user's: not held to the published digest."""
        return replace(self, path=path, sha256=None)


def _github(name: str, filename: str, sha256: str, licence: str, repo: str, commit: str, source: str) -> ModelSpec:
    """A file at a fixed commit of a public repository."""
    return ModelSpec(name, filename, sha256, licence, f"{_RAW}/{repo}/{commit}/{source}", commit[:12])


_YUNET_COMMIT = "0047ac24afb1a50a0c6105001c89d1b5b805dbf1"
_FSANET_COMMIT = "002549c981b607f722e0810d999afcde7e5aaa66"
_LAION_COMMIT = "6d122adad522ab246644d9dc1c6d7a3810ee255f"

_SMALL = (
    _github(
        "yolox_nano",
        "yolox_nano_416_coco.onnx",
        "e8af074932d4ed7e232278e3055cefcdea3edf178874a3694ae292649fb464dd",
        "Apache-2.0 (Megvii YOLOX)",
        "Bigisland1729/object-detection-models",
        "7f3f2fa34b351e3d2af150893458106ad3f3a84f",
        "yolox_nano.onnx",
    ),
    _github(
        "picodet_s",
        "picodet_s_416_coco.onnx",
        "cdab77bdde16e4f76bec734c4e5791801d1739e4c7ec1995e0e110e04300d0c2",
        "Apache-2.0 (PaddleDetection PP-PicoDet)",
        "hpc203/picodet-onnxruntime",
        "dfe4d6cd0a18cd4126ee381e81df8a0b1e6ad97b",
        "coco/picodet_s_416_coco.onnx",
    ),
    _github(
        "yunet",
        "yunet_n_dynamic.onnx",
        "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        "Apache-2.0 text in the source repository; libfacedetection is BSD-3-Clause",
        "ShiqiYu/libfacedetection.train",
        _YUNET_COMMIT,
        "onnx/yunet_n_dynamic.onnx",
    ),
    _github(
        "yunet_640",
        "yunet_n_640_640.onnx",
        "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        "Apache-2.0 text in the source repository; libfacedetection is BSD-3-Clause",
        "ShiqiYu/libfacedetection.train",
        _YUNET_COMMIT,
        "onnx/yunet_n_640_640.onnx",
    ),
    _github(
        "fsanet_1x1",
        "fsanet_1x1.onnx",
        "d85e90cb4b9d3a87e81bbfdcfcd130cbe0e175407042e439a570aa396c44eda6",
        "MIT",
        "omasaht/headpose-fsanet-pytorch",
        _FSANET_COMMIT,
        "pretrained/fsanet-1x1-iter-688590.onnx",
    ),
    _github(
        "fsanet_var",
        "fsanet_var.onnx",
        "2877b1db98e3dc66468e90df8db4a21059facd1c3f107af91c6d4fe6476a03e1",
        "MIT",
        "omasaht/headpose-fsanet-pytorch",
        _FSANET_COMMIT,
        "pretrained/fsanet-var-iter-688590.onnx",
    ),
    _github(
        "ppocr_det",
        "ppocrv3_det.onnx",
        "01c414b39144bf1d1238c5e8ee1e23d5c5b96b231cea0b71ceba16c05434e5cc",
        "Apache-2.0 (PaddleOCR)",
        "Kahsolt/CCF-BDCI-2024-TPU-ocr-deploy",
        "37b7921072f3ddd9d55dab64f9a1ed6627236f18",
        "models/ch_PP-OCRv3_det_infer.onnx",
    ),
    # Converted to ONNX from the published TensorFlow.js weights, so there is no address that serves this very file.
    ModelSpec(
        "nsfw_mobilenet_v2",
        "nsfwjs_mobilenet_v2_224.onnx",
        "d60801ade9e1938e81c1ddf97b05add57863e5a4c4f3062496531643799cfe9a",
        "MIT (infinitered/nsfwjs)",
        None,
        "d55a54c51f14",
    ),
)

_AESTHETIC_HEADS = (
    _github(
        "laion_aesthetic_l14",
        "sac+logos+ava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        "Apache-2.0",
        "christophschuhmann/improved-aesthetic-predictor",
        "6934dd81792f086e613a121dbce43082cb8be85e",
        "sac+logos+ava1-l14-linearMSE.pth",
    ),
    _github(
        "laion_linear_l14",
        "sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        "MIT",
        "LAION-AI/aesthetic-predictor",
        _LAION_COMMIT,
        "sa_0_4_vit_l_14_linear.pth",
    ),
    _github(
        "laion_linear_b32",
        "sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        "MIT",
        "LAION-AI/aesthetic-predictor",
        _LAION_COMMIT,
        "sa_0_4_vit_b_32_linear.pth",
    ),
    _github(
        "laion_linear_b16",
        "sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        "MIT",
        "LAION-AI/aesthetic-predictor",
        _LAION_COMMIT,
        "sa_0_4_vit_b_16_linear.pth",
    ),
)


def _ultralytics(family: str, release: str) -> tuple[ModelSpec, ...]:
    """The five sizes of one ultralytics family. AGPL-3.0 binds whoever uses them: the library and the weights alike."""
    return tuple(
        ModelSpec(
            f"{family}{size}",
            f"{family}{size}.pt",
            None,
            "AGPL-3.0 or Ultralytics Enterprise",
            f"{_ULTRALYTICS}/{release}/{family}{size}.pt",
            release,
        )
        for size in "nsmlx"
    )


_FULL = (
    *_ultralytics("yolo11", "v8.3.0"),
    *_ultralytics("yolo26", "v8.4.0"),
    ModelSpec(
        "clip_vit_l14",
        "ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",  # its publisher puts it into the address
        "MIT (OpenAI CLIP); the model card advises against deployment without study",
        "https://openaipublic.azureedge.net/clip/models/"
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        "openai",
    ),
    ModelSpec(
        "sscd_disc_mixup",
        "sscd_disc_mixup.torchscript.pt",
        None,
        "MIT (Meta SSCD)",
        "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
        "disc_mixup",
    ),
    ModelSpec("headpose_6drepnet", "6drepnet.torchscript.pt", None, "MIT (6DRepNet)", None, "torchscript"),
    ModelSpec(
        "torchvision_fasterrcnn",
        "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
        None,
        "BSD-3-Clause",
        "https://download.pytorch.org/models/fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
        "COCO_V1",
    ),
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in (*_SMALL, *_AESTHETIC_HEADS, *_FULL)}


def known(name: str) -> ModelSpec:
    """The entry called `name`. Raises ValueError that lists the names there are."""
    if name not in MODELS:
        raise ValueError(f"there is no model called {name!r}; known models: {', '.join(sorted(MODELS))}")
    return MODELS[name]
