"""The pretraining objective: masked reconstruction, cross-view agreement with an EMA teacher, and spread.

One pass of the student over the visible tokens of the two global views and over the local views gives both the tokens
that the decoder completes and the class tokens that must agree with what the teacher says of the other views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone, build_backbone, patchify
from sapiens2.model.normalise import normalise
from sapiens2.model.rope import concatenate
from sapiens2.model.weights import load_weights, named_weights
from sapiens2.pretrain import collapse, ema, losses, ranks, schedules
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.decoder import MaskedDecoder, complement, take
from sapiens2.pretrain.dino_head import ProjectionHead
from sapiens2.pretrain.photometric import augment
from sapiens2.pretrain.views import GLOBAL_VIEWS

NO_DECAY_TOKENS = ("cls_token", "storage_tokens", "mask_token", "w_cls", "local_pos_embed")


class Student(NamedTuple):
    """What the student makes of a batch of B images."""

    cls: Tensor  # [B, 2 + V, D] fp32, after the final norm
    hidden: list[Tensor]  # [2 B, 9 + kept, D] of the masked global views, [V B, 9 + kept, D] of the local ones
    local_images: Tensor | None  # [V B, 3, h, w], recoloured


class Teacher(NamedTuple):
    """What the teacher makes of the two full global views of B images."""

    cls: Tensor  # [2 B, D] fp32, after the final norm
    answers: Tensor  # [B, 2, K] probabilities


class PretrainObjective(nn.Module):
    """Student, teacher, projection heads, decoder and centre; see `sapiens2.engine.objective.Objective`."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.architecture, window_tokenizer=config.window_tokenizer)
        with torch.device("meta"):  # it is a copy of the student
            self.teacher = build_backbone(config.architecture, window_tokenizer=config.window_tokenizer)
        if not self.backbone.cls_token.is_meta:
            self.teacher.to_empty(device=self.backbone.cls_token.device)
        self.teacher.rope = self.backbone.rope
        dim = self.backbone.architecture.dim
        shape = (dim, config.head_hidden, config.head_bottleneck, config.prototypes)
        self.head = ProjectionHead(*shape, unit_prototypes=config.unit_prototypes)
        self.teacher_head = ProjectionHead(*shape, unit_prototypes=config.unit_prototypes)
        for module in (self.teacher, self.teacher_head):
            module.requires_grad_(False)
        pixels = 3 * config.target_patch**2
        decoder = (dim, config.decoder_dim, config.decoder_layers, config.decoder_heads, pixels)
        self.decoder = MaskedDecoder(*decoder, position=config.decoder_position)
        self.centre: Tensor
        self.rankme: Tensor
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.register_buffer("rankme", torch.zeros(()))  # the last measurement, for the steps between two
        # What the micro-batches of one optimiser step have said; empty between steps.
        self.logit_sum: Tensor
        self.logit_count: Tensor
        self.register_buffer("logit_sum", torch.zeros(config.prototypes), persistent=False)
        self.register_buffer("logit_count", torch.zeros(()), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Draws student, head and decoder from the seed; the teacher starts as the student.

        They are drawn where they lie: a run draws on the CPU, so that its start is the same on every machine. After
        `to_empty` of an objective built on the meta device this sets all there is, on a GPU in a moment; on the meta
        device there is nothing to set.
        """
        if self.centre.is_meta:
            return
        generator = torch.Generator(self.centre.device).manual_seed(self.config.engine.seed)
        for module in (self.backbone, self.head, self.decoder):
            module.init_weights(generator)
        self._copy_to_teacher()
        for buffer in self.buffers():
            buffer.zero_()

    def load_backbone(self, path: str) -> None:
        """Starts from a checkpoint: student and teacher take its weights, head and decoder stay fresh."""
        load_weights(self.backbone, path)
        self._copy_to_teacher()

    def _copy_to_teacher(self) -> None:
        ema.copy(self.teacher, self.backbone)
        ema.copy(self.teacher_head, self.head)

    def before_step(self, parts: Sequence[dict[str, Tensor]], step: int) -> None:
        """With Sinkhorn and several micro-batches the teacher answers ahead: it balances over the whole batch."""
        if len(parts) == 1 or self.config.centring != "sinkhorn" or not self.config.contrastive_weight:
            return
        with torch.no_grad():
            seen = [self(part, step, only_teacher=True) for part in parts]  # a call, as sharding works on calls
            answers = self._answers(torch.cat([s["logits"] for s in seen]), step).chunk(len(parts))
        for part, own, probabilities in zip(parts, seen, answers, strict=True):
            part |= {"teacher_cls": own["cls"], "teacher_answers": probabilities}

    def forward(self, batch: dict[str, Tensor], step: int, *, only_teacher: bool = False) -> dict[str, Tensor]:
        """The named losses of a batch made by `views.sample`; `loss` is the total, the rest is logged.

        With `only_teacher`, what the teacher makes of the global views instead: cls [2 B, D], logits [2 B, K].
        """
        config = self.config
        images = normalise(batch["globals"].flatten(0, 1))  # [2 B, 3, H, W]
        if only_teacher:
            return self._ask_teacher(images)
        teacher = self._teach(images, batch, step) if config.contrastive_weight else None
        student = self._learn(images, batch)
        terms: dict[str, Tensor] = {}
        if config.mae_weight:
            terms["mae"] = self._reconstruction(student, images, batch)
        with torch.autocast(images.device.type, enabled=False):
            if teacher is not None:
                logits = self.head(student.cls, freeze_prototypes=step < config.freeze_prototypes_steps)
                terms["contrastive"] = losses.cross_view_loss(logits, teacher.answers, config.student_temperature)
            if config.koleo_weight:
                terms["koleo"] = self._spread(student.cls)
            weights = self.weights(step)
            total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
            return {"loss": total, **terms, **self._measure(teacher, student.cls, batch, step)}

    def weights(self, step: int) -> dict[str, float]:
        """Weights of the terms; KoLeo is ramped over the warm-up, as it would drown the others at the start."""
        config = self.config
        ramp = schedules.ramp(step, config.engine.warmup_steps)
        return {
            "mae": config.mae_weight,
            "contrastive": config.contrastive_weight,
            "koleo": config.koleo_weight * ramp,
        }

    @torch.no_grad()
    def _teach(self, images: Tensor, batch: dict[str, Tensor], step: int) -> Teacher:
        """What the teacher says of the full global views, or said before this step."""
        if "teacher_answers" in batch:
            return Teacher(batch["teacher_cls"], batch["teacher_answers"])
        said = self._ask_teacher(images)
        if self.training:
            self.logit_sum += said["logits"].sum(0)
            self.logit_count += len(said["logits"])
        return Teacher(said["cls"], self._answers(said["logits"], step))

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor) -> dict[str, Tensor]:
        cls = self._class_tokens(self.teacher, images)
        with torch.autocast(images.device.type, enabled=False):
            return {"cls": cls, "logits": self.teacher_head(cls)}

    def _answers(self, logits: Tensor, step: int) -> Tensor:
        """Logits [2 B, K] to probabilities [B, 2, K]."""
        config = self.config
        temperature = schedules.linear(step, *config.teacher_temperature, config.teacher_temperature_steps)
        with torch.autocast(logits.device.type, enabled=False):
            if config.centring == "sinkhorn":
                probabilities = losses.sinkhorn(logits, temperature)
            else:
                probabilities = losses.centred(logits, self.centre, temperature)
        return probabilities.unflatten(0, (-1, GLOBAL_VIEWS))

    def _learn(self, images: Tensor, batch: dict[str, Tensor]) -> Student:
        """The student's pass; local views with as many tokens as a masked global one share its batch."""
        backbone, kept = self.backbone, batch["kept"].flatten(0, 1)
        tokens = [backbone.embed(take(backbone.patchify(images), kept))]
        rows = [backbone.rope.rows(*self.config.grid, images.device).gather(kept)]
        views = None
        if self.config.local_views:
            views = normalise(augment(batch["locals"].flatten(0, 1), batch["photometric"].flatten(0, 1)))
            places, patches = backbone.rope.rows(*self.config.local_grid, images.device), backbone.patchify(views)
            if self.config.local_masked:
                kept_local = batch["kept_local"].flatten(0, 1)
                tokens.append(backbone.embed(take(patches, kept_local)))
                rows.append(places.gather(kept_local))
            else:
                tokens.append(backbone.embed(patches))
                rows.append(places.expand(len(views)))
        counts = [len(part) for part in tokens]
        if len({part.shape[1] for part in tokens}) == 1:
            hidden = list(backbone.encode(torch.cat(tokens), concatenate(rows))[0].split(counts))
        else:
            hidden = [backbone.encode(part, places)[0] for part, places in zip(tokens, rows)]
        cls = [final_norm(backbone, part[:, 0]).unflatten(0, (len(batch["kept"]), -1)) for part in hidden]
        cls[0] = self._unmasked_class_tokens(cls[0], images)
        return Student(torch.cat(cls, dim=1), hidden, views)

    def _unmasked_class_tokens(self, cls: Tensor, images: Tensor) -> Tensor:
        """Replaces class tokens [B, 2, D] by those of the full views, for the share of images that asks for it."""
        share = {"masked": 0.0, "full": 1.0, "mixed": self.config.mixed_share}[self.config.student_cls_source]
        group, own = self.config.koleo_group, len(cls)
        # The first of every group, whichever ranks hold it, so that their number changes nothing.
        first = round(share * group)
        if not first:
            return cls
        places = [[(rank * own + i) % group < first for i in range(own)] for rank in range(ranks.size())]
        # All ranks pass as many through the backbone, whose shards they gather together; who has fewer, fills up.
        count = max(map(sum, places))
        place = (torch.arange(own, device=cls.device) + ranks.rank() * own) % group  # made there: a list had to be sent
        asked = place < first
        chosen = asked.logical_not().argsort(stable=True)[:count]
        views = images.unflatten(0, (-1, GLOBAL_VIEWS)).index_select(0, chosen).flatten(0, 1)
        full = self._class_tokens(self.backbone, views).unflatten(0, (-1, GLOBAL_VIEWS))
        full = torch.where(asked[chosen, None, None], full, cls[chosen])
        return cls.scatter(0, chosen[:, None, None].expand_as(full), full)

    def _class_tokens(self, backbone: Backbone, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, D] in fp32; in the last block nothing but the class token is computed."""
        tokens = backbone.embed(backbone.patchify(images))
        rows = backbone.rope.rows(*backbone.grid(*images.shape[-2:]), images.device)
        hidden, _ = backbone.encode(tokens, rows, class_only=True)
        return final_norm(backbone, hidden[:, 0])

    def _reconstruction(self, student: Student, images: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The decoder's loss on the hidden tokens: a mean over the two global views, or over all views."""
        kept, grid = batch["kept"].flatten(0, 1), self.config.grid
        loss = self._completion_loss(student.hidden[0], images, kept, grid)
        if not self.config.local_masked or student.local_images is None:
            return loss
        kept, grid, count = batch["kept_local"].flatten(0, 1), self.config.local_grid, self.config.local_views
        local = self._completion_loss(student.hidden[1], student.local_images, kept, grid)
        return (GLOBAL_VIEWS * loss + count * local) / (GLOBAL_VIEWS + count)

    def _completion_loss(self, hidden: Tensor, images: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
        prediction, masked = self._complete(self._seen(hidden), kept, grid)
        return losses.reconstruction_loss(prediction, take(self.target_patches(images), masked))

    def _complete(self, tokens: Tensor, kept: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The decoder's answers [N, hidden, pixels] and which tokens they are of [N, hidden]."""
        masked = complement(kept, grid[0] * grid[1])
        return self.decoder(tokens[:, 0], tokens[:, 1:], kept, masked, grid), masked

    @torch.no_grad()
    def complete(self, images: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """What the student makes of views seen in part: normalised images [N, 3, H, W], kept [N, n] -> as `_complete`.

        The answers are in the units of `losses.normalised_targets`.
        """
        backbone = self.backbone
        tokens = backbone.embed(take(backbone.patchify(images), kept))
        rows = backbone.rope.rows(*self.config.grid, images.device).gather(kept)
        return self._complete(self._seen(backbone.encode(tokens, rows)[0]), kept, self.config.grid)

    def _seen(self, hidden: Tensor) -> Tensor:
        """What the decoder reads of the encoder's output: class token and patches, normed; the registers stay."""
        return self.backbone.ln1(torch.cat([hidden[:, :1], hidden[:, self.backbone.prefix :]], dim=1))

    def target_patches(self, images: Tensor) -> Tensor:
        """What the decoder is to predict: [N, 3, H, W] -> [N, tokens, pixels]; of 4K views at half their size."""
        if self.config.window_tokenizer:
            images = F.avg_pool2d(images, 2)
        return patchify(images, self.config.target_patch)

    def _spread(self, cls: Tensor) -> Tensor:
        """KoLeo of the two global views' class tokens, each among its own."""
        config = self.config
        return losses.koleo_over_ranks(cls[:, :GLOBAL_VIEWS], config.koleo_group, config.koleo_floor)

    @torch.no_grad()
    def _measure(
        self, teacher: Teacher | None, student_cls: Tensor, batch: dict[str, Tensor], step: int
    ) -> dict[str, Tensor]:
        """Collapse metrics of the teacher (without one, of the student), and how much the views were enlarged."""
        cls = student_cls[:, :GLOBAL_VIEWS].flatten(0, 1) if teacher is None else teacher.cls
        if step % self.config.metrics_every == 0:
            self.rankme.copy_(collapse.rankme(cls))
        measured = {
            "cls_std": collapse.class_token_std(cls),
            "rankme": self.rankme.clone(),
            "upsampling_global": batch["upsampling"][:, :GLOBAL_VIEWS].mean(),
        }
        if teacher is not None:
            answers = teacher.answers.flatten(0, 1)
            measured["mutual_information"] = collapse.mutual_information(answers)
            measured["prototypes_used"] = collapse.prototypes_used(answers)
        if self.config.local_views:
            measured["upsampling_local"] = batch["upsampling"][:, GLOBAL_VIEWS:].mean()
        return measured

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Moves the teacher towards the student, and the centre towards what the teacher said in this step."""
        ema.follow(self.teacher, self.backbone, self.config.ema)
        ema.follow(self.teacher_head, self.head, self.config.ema)
        if self.config.centring == "centre" and self.config.contrastive_weight:
            mean = ranks.all_sum(self.logit_sum) / ranks.all_sum(self.logit_count)
            self.centre.lerp_(mean, 1.0 - self.config.centre_momentum)
        self.logit_sum.zero_()
        self.logit_count.zero_()

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Two groups: matrices decay; norms, gains, biases, tokens and positions do not."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                exempt = parameter.ndim < 2 or name.rpartition(".")[2] in NO_DECAY_TOKENS
                (others if exempt else decayed).append(parameter)
        return [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": others, "lr": lr, "weight_decay": 0.0},
        ]

    def export_state(self) -> dict[str, Tensor]:
        """The teacher's backbone under the released names."""
        return named_weights(self.teacher)


def final_norm(backbone: Backbone, hidden: Tensor) -> Tensor:
    """The backbone's last norm, always in fp32: at first, class tokens differ in their last bits only."""
    with torch.autocast(hidden.device.type, enabled=False):
        norm = backbone.ln1
        return F.rms_norm(hidden.float(), norm.normalized_shape, norm.weight.float(), norm.eps)
