"""The straightforward pretraining step that ours is measured against, written from the equations, on our weights.

Mask tokens stand in the encoder (full student sequences), one forward pass per crop group, the teacher's last block
computes all tokens, key heads are repeated, the decoder's last map runs over the whole grid, AdamW, clip and EMA go
tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model import block
from sapiens2.model.backbone import Backbone, patchify
from sapiens2.model.normalise import normalise
from sapiens2.pretrain import losses, schedules
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.decoder import complement, take
from sapiens2.pretrain.measure import drawn_on
from sapiens2.pretrain.objective import PretrainObjective, final_norm
from sapiens2.pretrain.photometric import augment

STEP = 10  # past the first warm-up steps, so that KoLeo counts
Batch = dict[str, Tensor]


class Attention:
    """Attention of the straightforward side: key heads always repeated; keys can be hidden, for the check alone."""

    def __init__(self) -> None:
        self.shown: Tensor | None = None  # [B, n]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shared = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        mask = None if self.shown is None else self.shown[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Straightforward(nn.Module):
    """The objective with mask tokens in the encoder and a forward pass per crop group, on our weights."""

    def __init__(self, config: PretrainConfig, device: torch.device) -> None:
        super().__init__()
        self.config, self.ours = config, drawn_on(device, config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.ours.backbone.architecture.dim, device=device))
        self.attention, self.checking = Attention(), False

    def forward(self, batch: Batch, step: int) -> Batch:
        """The terms of a batch."""
        config, ours = self.config, self.ours
        images = normalise(batch["globals"].flatten(0, 1))  # [2 B, 3, H, W], the two views of an image in a row
        answers = self._answer(images, step).unflatten(0, (-1, 2))
        kept = batch["kept"].flatten(0, 1)
        hidden = self._encode(ours.backbone, images, kept)
        cls = [final_norm(ours.backbone, hidden[:, 0]).unflatten(0, (-1, 2))]
        error = self._reconstruction(ours.backbone.ln1(hidden), images, kept)
        changed = augment(batch["locals"].flatten(0, 1), batch["photometric"].flatten(0, 1))
        local = self._encode(ours.backbone, normalise(changed))[:, 0]
        cls.append(final_norm(ours.backbone, local).unflatten(0, (-1, config.local_views)))
        student = torch.cat(cls, 1)  # [B, 2 + V, D]
        with torch.autocast(batch["globals"].device.type, enabled=False):
            logits = ours.head(student, freeze_prototypes=False)
            koleo = [losses.koleo_loss(c, config.koleo_group, config.koleo_floor) for c in student[:, :2].unbind(1)]
            terms = {
                "mae": error,
                "contrastive": losses.cross_view_loss(logits, answers, config.student_temperature),
                "koleo": torch.stack(koleo).mean(),
            }
            total = torch.stack([ours.weights(step)[name] * term for name, term in terms.items()]).sum()
            return {"loss": total, **terms}

    def _encode(self, backbone: Backbone, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """All tokens of a group of views; those not kept are replaced by the mask token. Before the last norm."""
        tokens = backbone.embed(backbone.patchify(images))
        if kept is not None:
            seen = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter(1, kept, True)
            tokens = torch.where(seen[..., None], tokens, self.mask_token.to(tokens.dtype))
            if self.checking:
                self.attention.shown = F.pad(seen, (backbone.prefix, 0), value=True)
        hidden = backbone.encode(tokens, backbone.rope.rows(*backbone.grid(*images.shape[-2:]), images.device))[0]
        self.attention.shown = None
        return hidden

    @torch.no_grad()
    def _answer(self, images: Tensor, step: int) -> Tensor:
        ours, config = self.ours, self.config
        cls = final_norm(ours.teacher, self._encode(ours.teacher, images)[:, 0])
        with torch.autocast(images.device.type, enabled=False):
            temperature = schedules.linear(step, *config.teacher_temperature, config.teacher_temperature_steps)
            return losses.centred(ours.teacher_head(cls), ours.centre, temperature)

    def _reconstruction(self, normed: Tensor, images: Tensor, kept: Tensor) -> Tensor:
        """The decoder over the whole grid; every token is predicted, and the hidden ones are picked from that."""
        decoder, config = self.ours.decoder, self.config
        visible = take(normed[:, self.ours.backbone.prefix :], kept)
        x = torch.cat([decoder.embed(normed[:, :1]), decoder.fill(visible, kept, config.grid)], 1)
        for layer in decoder.blocks:
            x = layer(x, None)
        masked = complement(kept, config.tokens)
        prediction = take(decoder.predict(decoder.norm(x[:, 1:])), masked)
        return losses.reconstruction_loss(prediction, take(patchify(images, config.target_patch), masked))


class PlainStep:
    """One optimiser step of the straightforward side: everything tensor by tensor."""

    def __init__(self, objective: Straightforward) -> None:
        self.objective, self.config = objective, objective.config
        groups = objective.ours.param_groups(self.config.engine.lr, self.config.engine.weight_decay)
        groups[1]["params"].append(objective.mask_token)
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, betas=self.config.engine.betas, foreach=False, fused=False)

    def __call__(self, step: int, batch: Batch) -> None:
        bf16 = self.config.engine.precision == "bf16"
        with torch.autocast(batch["globals"].device.type, torch.bfloat16, enabled=bf16):
            loss = self.objective(batch, step)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.config.engine.clip_norm, foreach=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        ours = self.objective.ours
        with torch.no_grad():
            for teacher, student in ((ours.teacher, ours.backbone), (ours.teacher_head, ours.head)):
                for t, s in zip(teacher.parameters(), student.parameters()):
                    t.copy_(t * self.config.ema + s * (1 - self.config.ema))


@contextmanager
def plain_attention(attention: Attention) -> Iterator[None]:
    """The blocks attend as the straightforward side does."""
    original = block.attend
    block.attend = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        block.attend = original


def check(config: PretrainConfig, batch: Batch) -> float:
    """The largest relative difference of the three losses, in fp32, from random weights that all count."""
    ours, plain = PretrainObjective(config), Straightforward(config, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ours.parameters():
            scale = 0.3 if parameter.ndim < 2 else 0.5 * parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        plain.ours.load_state_dict(ours.state_dict())
        plain.checking = True
        with plain_attention(plain.attention):
            reference = plain(batch, STEP)
        terms = ours(batch, STEP)
    apart = {name: abs(terms[name].item() / value.item() - 1) for name, value in reference.items()}
    assert max(apart.values()) < 1e-5, f"the two sides have other losses: {apart}"
    return max(apart.values())
