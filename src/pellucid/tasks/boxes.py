"""Boxes: learn to find things on pictures and to say what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.memory.peak import PROCESS
from pellucid.checkpoints.files import read_json
from pellucid.checkpoints.plain import open_plain, save_plain
from pellucid.data import boxes as data
from pellucid.data.box_parts import (
    LARGEST,
    PARTS,
    Batch,
    Part,
    common_size,
    read_part,
    renumbered,
    shared_out,
    truth_of,
    write_part,
)
from pellucid.data.shuffled import Shuffled
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.detection import Detections, assign, cell_centres, detect, detection_loss, focal_loss, giou
from pellucid.networks.detector import Detector, DetectorConfig
from pellucid.tasks.average_precision import Boxes, BoxReport, average_precision
from pellucid.tasks.task import Design, Prediction, Recipe, Reference

if TYPE_CHECKING:
    from PIL.Image import Image

    from pellucid.tasks.explanation import Explanation
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

MODEL_TYPE = "pellucid-detector"
SHOWN = 0.4  # the score from which on a box is shown
FAINT = 0.05  # the score from which on a box can be asked about
ENOUGH = 1000  # pictures to count how common classes are
AT_ONCE = 16  # pictures that are looked at together when nothing is learned from them
KEPT = 20  # numbers for each pixel and channel of a stage: its convolutions, norms, activations and their gradients


class BoxesTask:
    """Pictures with boxes around things, in three parts."""

    name: ClassVar[str] = "boxes"
    options: ClassVar[frozenset[str]] = frozenset({"picture_size"})

    def __init__(
        self,
        classes: Sequence[str],
        size: int,
        parts: dict[str, Part] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.classes, self.size, self._parts, self._facts = list(classes), size, parts or {}, facts or {}
        self.items = len(self._parts["train"].pixels) if parts else 0
        self.unit = _("pictures")
        self.judged_on = (
            _("the test pictures")
            if self._has("test")
            else _("the validation pictures")
            if self._has("validation")
            else _("the training pictures")
        )

    def _has(self, part: str) -> bool:
        """Whether there is anything to be found in a part: without it, nothing can be judged by it."""
        return part in self._parts and self._parts[part].n_boxes > 0

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        if source is None or not (files := data.annotation_files(Path(source))):
            return None
        return _("boxes: {file} says where things are on the pictures").format(file=next(iter(files.values())).name)

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> BoxesTask:
        """Read pictures and boxes, bring them to one size, hold a part out, write them into ``folder``/data.

        Raises:
            PellucidError: when a picture or a box cannot be used, or the parts name different classes.
        """
        files = data.annotation_files(Path(source)) if source else {}
        if not files:
            raise _no_annotations(source)
        read = {part: data.read_boxes(file) for part, file in files.items()}
        shared, how, notes = shared_out(read, options.seed)
        if crowds := sum(part.crowds for part in read.values()):
            notes.append(_("{n} boxes that stand for a crowd were left out.").format(n=f"{crowds:,}"))
        names = (read.get("") or read["train"]).names
        everything = [picture for pictures in shared.values() for picture in pictures]
        size = common_size(everything, options.picture_size, DetectorConfig(len(names)).multiple)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for part, pictures in shared.items():
            write_part(folder / "data", part, pictures, size)
        facts = {
            "classes": list(names),
            "picture_size": size,
            "train_items": len(shared["train"]),
            "boxes": sum(len(picture.boxes) for picture in everything),
            "held_out": how,
            "held_out_items": len(shared["validation"] or shared["train"]),
            "test_items": len(shared["test"]),
            "notes": notes,
        }
        return BoxesTask.restore(folder, facts)

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> BoxesTask:
        if facts is None:
            own = read_json(folder / "config.json").get("pellucid", {})
            return BoxesTask(own["classes"], own["picture_size"])
        parts = {part: read_part(folder / "data", part) for part in PARTS}
        return BoxesTask(facts["classes"], facts["picture_size"], parts, facts)

    def save(self, folder: Path) -> None:
        """Nothing: the classes stand in config.json."""

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        facts = self._facts
        said = _("{n:,} pictures with {boxes:,} boxes of {classes} classes, brought to {size} × {size} pixels.").format(
            n=sum(len(part.pixels) for part in self._parts.values()),
            boxes=facts["boxes"],
            classes=len(self.classes),
            size=self.size,
        )
        return [said, facts["held_out"]]

    # what the plan asks

    def designs(self, options: TrainOptions) -> list[Design]:
        config = DetectorConfig(len(self.classes))
        tree = families.detector(config, self.size, self.size)
        return [Design(asdict(config), counts.parameters(tree).total, 6.0 * compute.forward(tree).total, 1)]

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        size = _("as given") if options.picture_size else _("the longest side there is, {most} at most")
        return {
            "network": _("small enough to be trained in minutes"),
            "picture_size": size.format(most=LARGEST),
        }

    def recipe(self, design: Design) -> Recipe:
        return Recipe(
            "adamw",
            5e-3,
            warmup=0.05,
            clip=10.0,
            batch=16,
            passes=60,
            precision="fp32",
            why={
                "optimiser": _("what detectors without a pretrained network learn fastest with"),
                "batch": _("enough boxes in a step for batch norm and a steady gradient"),
                "passes": _("{passes} passes over the pictures: more would be learned by heart"),
                "few": _("the fewest from which a network learns anything: there are very few pictures"),
            },
        )

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        return 0.0, 0.01, _("usual for detectors; batch norm regularises too")

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        if dropout:
            raise PellucidError(
                _("A detector has no dropout."), "--dropout", _("Leave it out; --weight-decay regularises.")
            )
        return network

    def memory(self, plan: Plan) -> int:
        config = _config(plan)
        kept = sum(n * (self.size // 2 ** (stage + 1)) ** 2 for stage, n in enumerate(config.channels)) * KEPT
        pixels = sum(part.pixels.nbytes for part in self._parts.values())  # memory-mapped, and read again and again
        return int(PROCESS + pixels + 16 * plan.parameters + 4 * kept * plan.batch)

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        config, why = _config(plan), plan.reasons
        cells = self.size // config.stride
        shape = _("stages of {channels} channels, a grid of {cells} × {cells} cells").format(
            channels="-".join(map(str, config.channels)), cells=cells
        )
        return [
            (_("network"), shape, why.get("network", "")),
            (_("picture size"), f"{self.size} × {self.size}", why.get("picture_size", "")),
        ]

    # what the loop asks

    def network(self, plan: Plan) -> Detector:
        return Detector(_config(plan), seed=plan.seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def save_network(self, network: Any, folder: Path) -> None:
        own = {"task": self.name, "classes": self.classes, "picture_size": self.size}
        save_plain(network, folder, {"model_type": MODEL_TYPE, **asdict(network.config)}, own)

    def open_network(self, folder: Path) -> nn.Module:
        return open_plain(folder)[0]

    def batches(self, split: str, plan: Plan) -> Shuffled:
        part = self._parts[split]
        return Shuffled(len(part.pixels), plan.batch, plan.seed, part.batch)

    def loss(self, network: Any, batch: Batch) -> tuple[Tensor, int]:
        """Focal loss of the classes and 1 - GIoU of the boxes; the cells that answer for a box are the targets."""
        return self._answers(network, batch)[2:]

    def _answers(self, network: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor, int]:
        """The network's logits and boxes, the loss and the number of targets."""
        device = next(network.parameters()).device
        truth = [(boxes_N4.to(device), classes_N.to(device)) for boxes_N4, classes_N in batch[1]]
        logits_BKRC, boxes_B4RC = network(_pictures(batch[0].to(device)))
        return logits_BKRC, boxes_B4RC, *detection_loss(logits_BKRC, boxes_B4RC, truth, network.config.stride)

    def metrics(self, network: Any, plan: Plan, whole: bool = False) -> dict[str, float]:
        """1 - AP@[.5:.95], 1 - AP@0.5 and the loss, on validation pictures; ``whole``: on the test pictures."""
        part = self._judging(whole)
        found, true, loss = self._measured(network, part, part.some(len(part.truth) if whole else plan.evaluate_items))
        precision = average_precision(found, true, len(self.classes))
        missed = {"missed_precision": precision, "missed_precision_at_50": precision[0]}
        return {name: float(1 - np.nanmean(values)) for name, values in missed.items()} | {"loss": loss}

    def _judging(self, whole: bool) -> Part:
        wanted = ("test", "validation") if whole else ("validation",)
        return self._parts[next((part for part in wanted if self._has(part)), "train")]

    @torch.no_grad()
    def _measured(self, network: Any, part: Part, chosen: np.ndarray) -> tuple[list[Boxes], list[Boxes], float]:
        """What is found on these pictures, what is there, and the loss a target."""
        found, loss, count = [], 0.0, 0
        for start in range(0, len(chosen), AT_ONCE):
            logits_BKRC, boxes_B4RC, total, targets = self._answers(
                network, part.batch(chosen[start : start + AT_ONCE])
            )
            loss, count = loss + total.item(), count + targets
            for logits_KRC, boxes_4RC in zip(logits_BKRC, boxes_B4RC, strict=True):
                found.append(_numpy(detect(logits_KRC, boxes_4RC, (self.size, self.size))))
        true = [Boxes(b_N4.numpy(), k_N.numpy(), np.ones(len(k_N))) for b_N4, k_N in (part.truth[i] for i in chosen)]
        return found, true, loss / max(1, count)

    def say(self, metrics: dict[str, float]) -> str:
        return _("average precision {ap:.3f} (AP@[.5:.95]), {ap50:.3f} at an overlap of one half (AP@0.5)").format(
            ap=1 - metrics["missed_precision"], ap50=1 - metrics["missed_precision_at_50"]
        )

    def next_command(self, folder: str) -> str:
        return f"pellucid predict {folder} PICTURE"

    # what the verdict asks

    def baselines(self, thorough: bool = False) -> Reference:
        """The best answer that looks at no picture: each class as probable as it is common, boxes of the usual size."""
        stride = DetectorConfig(len(self.classes)).stride
        return Reference(
            unit=_("a cell with a box"),
            simple=_blind_loss(self._parts["train"], self._judging(thorough), len(self.classes), stride),
            simple_said=_("how common each class is and how large boxes are"),
            figure="missed_precision",
            show=lambda missed: _("average precision {ap:.3f}").format(ap=1 - missed),
            data="" if self._has("validation") else _("the data it was trained on"),
        )

    # what a user of the trained model asks

    def read(self, source: str) -> list[Path]:
        """The pictures in and under a folder, or the one picture."""
        return data.pictures_in(Path(source))

    @torch.no_grad()
    def predict(self, network: Any, inputs: Sequence[Path | Image], least: float = SHOWN) -> list[Prediction]:
        """The things on each picture that score ``least``, the most certain first.

        A value is a list of {"name", "score", "box": [left, top, right, bottom]}, in the picture's own pixels.
        """
        return [
            Prediction(str(one), [found.json() for found in self._looked_at(network, one, least)[0]]) for one in inputs
        ]

    def draw(self, picture: Path | Image, value: Sequence[dict[str, Any]]) -> Image:
        """The picture with the boxes of a prediction; each class has the same colour on every picture."""
        colours = {name: data.COLOURS[k % len(data.COLOURS)] for k, name in enumerate(self.classes)}
        return data.draw(data.opened(picture), [data.Found(**one) for one in value], colours)

    def _looked_at(
        self, network: Any, given: Path | Image, least: float
    ) -> tuple[list[data.Found], Detections, Tensor]:
        """What was found, the same as the network says it, and what the network was given."""
        picture = data.opened(given)
        pixels_HW3, scale = data.letterbox(picture, self.size)
        given_13HW = _pictures(torch.tensor(pixels_HW3)[None].to(next(network.parameters()).device))
        logits_BKRC, boxes_B4RC = network.eval()(given_13HW)
        inside = round(picture.height * scale), round(picture.width * scale)
        seen = detect(logits_BKRC[0], boxes_B4RC[0], inside, least)
        rows = zip((seen.boxes / scale).tolist(), seen.classes.tolist(), seen.scores.tolist(), strict=True)
        return [data.Found(tuple(box), self.classes[kind], score) for box, kind, score in rows], seen, given_13HW

    def evaluate(self, network: Any, source: str | None = None) -> BoxReport:
        """On the run's own test pictures, or on a folder of pictures with boxes."""
        part = self._judging(True) if source is None else self._part_from(source)
        found, true, loss = self._measured(network.eval(), part, part.some(len(part.truth)))
        return BoxReport.of(self.classes, found, true, SHOWN, loss)

    def _part_from(self, source: str) -> Part:
        files = data.annotation_files(Path(source))
        if not files:
            raise _no_annotations(source)
        read = data.read_boxes(files.get("test") or next(iter(files.values())))
        pixels = np.stack([data.letterbox(data.opened(p.path), self.size)[0] for p in read.pictures])
        return Part(pixels, [truth_of(p, self.size) for p in renumbered(read, self.classes)])

    @torch.no_grad()
    def explain(
        self, network: Any, inputs: Sequence[Path | Image], value: str | None = None, rather_than: str | None = None
    ) -> Explanation:
        """Why a box on the first picture is of its class, or rather of that one than of another, by region and pixel.

        Args:
            value: Which box: "7" for the most certain one of this class, "7#2" for the next; None: the most certain.
            rather_than: Another class; None: the logit of the class alone, for classes do not compete here.

        Raises:
            PellucidError: when there is no such box or class.
        """
        from pellucid.tasks.explanation import Part as Share
        from pellucid.tasks.explanation import difference, explained, one_number
        from pellucid.tracing.trace import trace

        found, seen, given_13HW = self._looked_at(network, inputs[0], least=FAINT)
        which = _chosen(found, value)
        name = found[which].name
        if rather_than is not None and (rather_than not in self.classes or rather_than == name):
            raise PellucidError(
                _("{name} is no other class.").format(name=repr(rather_than)),
                "--rather-than",
                _("The classes are: {classes}.").format(classes=", ".join(self.classes)),
            )
        recorded = trace(network, given_13HW)
        row, column = seen.cells[which].tolist()
        address = f":out.0[0,{{}},{row},{column}]"
        question = one_number(recorded, address.format(self.classes.index(name)))
        asked = _("the logit of {name}").format(name=name)
        if rather_than is not None:
            asked = _("{a} rather than {b}").format(a=name, b=rather_than)
            other = address.format(self.classes.index(rather_than))
            question = difference(recorded, asked, question.name, other)
        amounts_3HW = recorded.flow(question, exact=True).inputs[":in.0"][0]
        left, top, right, bottom = seen.boxes[which].round().int().tolist()
        inside = amounts_3HW[:, top:bottom, left:right].sum().item()
        box = ", ".join(f"{side:.0f}" for side in found[which].box)
        shares = [
            Share(_("in the box [{box}]").format(box=box), None, inside),
            Share(_("around it"), None, amounts_3HW.sum().item() - inside),
        ]
        note = _("the cell of row {row}, column {column} found it: score {score:.3f}, the sigmoid of its logit")
        notes = (note.format(row=row, column=column, score=found[which].score),)
        return explained(asked, recorded, question, shares, maps={"contributions": amounts_3HW}, notes=notes)


def _chosen(found: Sequence[data.Found], value: str | None) -> int:
    """The index of the box that the user names."""
    if value is None and found:
        return 0
    name, _hash, number = (value or "").partition("#")
    own = [index for index, one in enumerate(found) if one.name == name]
    if number.isdecimal() and 1 <= int(number) <= len(own):
        return own[int(number) - 1]
    if own and not _hash:
        return own[0]
    there = ", ".join(f"{one.name} {one.score:.2f}" for one in found[:20]) or _("nothing")
    raise PellucidError(
        _("There is no such box on this picture: {value}.").format(value=value or _("any")),
        "",
        _("There are, with their scores: {boxes}. The second 7 is 7#2.").format(boxes=there),
    )


def _no_annotations(source: str | None) -> PellucidError:
    return PellucidError(
        _("There are no pictures with boxes here."),
        source or "",
        _("Put annotations.json, in the form of COCO, into the folder of the pictures."),
    )


def _config(plan: Plan) -> DetectorConfig:
    unknown = plan.network.keys() ^ {f.name for f in fields(DetectorConfig)}
    if unknown:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {', '.join(sorted(unknown))}",
            _("Give the plan.json of a run."),
        )
    return DetectorConfig(**plan.network)


def _pictures(pixels_BHW3: Tensor) -> Tensor:
    """Bytes to what the network is given: (batch, 3, height, width) from 0 to 1."""
    return pixels_BHW3.permute(0, 3, 1, 2).float() / 255


def _numpy(found: Detections) -> Boxes:
    return Boxes(found.boxes.cpu().numpy(), found.classes.cpu().numpy(), found.scores.cpu().numpy())


def _blind_loss(train: Part, judging: Part, n_classes: int, stride: int) -> float:
    """The loss of the best answer that is the same in every cell: a probability for each class, and one size of box."""
    owned, there = (_census(part, n_classes, stride) for part in (train, judging))
    p_G = torch.logspace(-5, -0.3, 200, dtype=torch.float64)
    costs_KG = owned.cost(p_G)
    p_K = p_G[costs_KG.argmin(1)]
    classes = there.cost(p_K).diagonal().sum()
    half_2 = (owned.boxes[:, 2:] - owned.boxes[:, :2]).median(0).values / 2
    boxes = (1 - giou(torch.cat([there.centres - half_2, there.centres + half_2], 1), there.boxes)).sum()
    return (classes + boxes).item() / max(1, len(there.boxes))


@dataclass(frozen=True)
class _Census:
    """The cells of some pictures, counted."""

    answering: Tensor  # (n_classes,) cells that answer for a box of the class
    cells: int
    boxes: Tensor  # (answering cells, 4)
    centres: Tensor  # (answering cells, 2)

    def cost(self, p_G: Tensor) -> Tensor:
        """The focal loss of each class, if every cell gives it the probability p: (n_classes, G)."""
        logits_G = torch.logit(p_G)
        yes_G, no_G = (focal_loss(logits_G, torch.full_like(logits_G, wanted)) for wanted in (1.0, 0.0))
        return self.answering[:, None] * yes_G + (self.cells - self.answering[:, None]) * no_G


def _census(part: Part, n_classes: int, stride: int) -> _Census:
    side = part.pixels.shape[1] // stride
    centre_2RC = cell_centres(side, side, stride)
    boxes, classes, centres = [], [], []
    chosen = part.some(ENOUGH)
    for boxes_N4, classes_N in (part.truth[i] for i in chosen):
        owner_RC = assign(boxes_N4, side, side, stride)
        owner_P = owner_RC[owner_RC >= 0]
        boxes.append(boxes_N4[owner_P])
        classes.append(classes_N[owner_P])
        centres.append(centre_2RC[:, owner_RC >= 0].T)
    answering_K = torch.bincount(torch.cat(classes), minlength=n_classes)
    return _Census(answering_K, len(chosen) * side * side, torch.cat(boxes), torch.cat(centres))
