"""Fine-tuning with few labels: a backbone and the probe's light decoder trained together on a handful of scenes."""

from __future__ import annotations

import math

import numpy as np
import torch

from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.dense_probe import Decoder, answers, batches_of, first_answer, output_grid, task_loss
from sapiens2.evaluation.frozen import OurBackbone, extract
from sapiens2.evaluation.headline import headline
from sapiens2.evaluation.probe_scenes import ProbeScenes, targets
from sapiens2.model.backbone import Backbone
from sapiens2.model.normalise import normalise
from sapiens2.tasks.vocabulary import parts

BACKBONE_LR = 5e-4
WARMUP = 0.1  # share of the steps
CLIP = 4.0

Array = np.ndarray


def tune(task: str, backbone: Backbone, labels: int, config: ProbeConfig, scenes: ProbeScenes) -> Array:
    """Train on the first `labels` fitted scenes; the error of every test scene [n_test], lower is better.

    Steps, batch, decoder, its learning rate and the seed are the probe's; the backbone, which is changed, takes a
    tenth of that rate at most. Raises ValueError when there are not as many scenes.
    """
    if not 0 < labels <= config.n_train:
        raise ValueError(f"labels={labels} must lie in 1..{config.n_train}, the scenes that are fitted on (n_train)")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone.to(device)
    samples = scenes.fitted[:labels]
    images = torch.from_numpy(np.stack([s.image for s in samples]))
    known = targets(task, samples, output_grid(task, backbone.grid(*config.image_size)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        decoder = Decoder(backbone.architecture.dim, task, config)
    with torch.no_grad():
        decoder.start_from(backbone.eval()(normalise(images.to(device))).patches.cpu(), first_answer(task, known))
    decoder.to(device)
    rates = (min(BACKBONE_LR, config.lr / 10), config.lr)
    groups = [{"params": list(m.parameters()), "lr": r} for m, r in zip((backbone, decoder), rates)]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    weights = torch.tensor(parts().weights).sqrt().to(device)
    batches = batches_of(labels, config)
    for step in range(config.steps):
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * _schedule(step, config.steps)
        chosen = next(batches)
        out = decoder(backbone.train()(normalise(images[chosen].to(device))).patches)
        loss = task_loss(task, out, {k: v[chosen].to(device) for k, v in known.items()}, weights, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP)
        optimizer.step()
    return _errors(task, backbone, decoder.eval(), config, scenes)


def _schedule(step: int, steps: int) -> float:
    """A short warm-up, then a cosine to 0."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def _errors(task: str, backbone: Backbone, decoder: Decoder, config: ProbeConfig, scenes: ProbeScenes) -> Array:
    extractor = OurBackbone(backbone, "tuned")
    grid = extractor.grid(*config.image_size)
    features = extract(extractor, scenes.images("test"), grid, batch=config.extract_batch, half=False)
    given = answers(task, decoder, features.patches, config.image_size)
    return headline(task, given, scenes.samples("test")).errors()
