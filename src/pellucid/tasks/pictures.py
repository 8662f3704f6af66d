"""Pictures: learn to say what class a picture is of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.memory import peak
from pellucid.checkpoints import efficientnet
from pellucid.checkpoints.files import read_file, read_json, write_tensors
from pellucid.checkpoints.plain import open_plain, save_plain
from pellucid.data import pictures, tables
from pellucid.data.shuffled import Shuffled
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.convnet import PRESETS, ConvNet, ConvNetConfig, convnet_config
from pellucid.networks.efficientnet_config import EfficientNetConfig
from pellucid.networks.losses import count, cross_entropy
from pellucid.networks.names import check_initialisation
from pellucid.networks.scaling import Scaled, Scaling
from pellucid.tasks import scores
from pellucid.tasks.task import Design, Prediction, Recipe, Reference, Rival

if TYPE_CHECKING:
    from PIL.Image import Image

    from pellucid.tasks.explanation import Explanation
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
LENET_SIDES = range(28, 41)  # pixels: below, its third layer has no room; above, it sees too small a piece
ENOUGH = 1500  # steps that bring these networks near their best, whatever the number of pictures
MANY = 20_000  # training pictures: from here on, moving them about gains nothing in the time there is
LINEAR = 2_000_000  # numbers (pictures x pixels) that the linear model it is compared with is fitted to
AT_HAND = 2**26  # numbers: so many pixels are kept scaled, more are scaled batch by batch
AT_ONCE = 2**22  # numbers of a layer's output, when nothing is learned
GRID = 7  # regions in a row of an explanation


class Given(NamedTuple):
    """A picture as the network takes it."""

    name: str
    pixels: np.ndarray  # (C, H, W) uint8


class PictureTask:
    """Pictures in three parts, as bytes; mean and deviation of the training pixels belong to the network."""

    name: ClassVar[str] = "pictures"
    options: ClassVar[frozenset[str]] = frozenset(
        {"target", "validation", "test", "picture_size", "network", "init", "class_weights"}
    )

    def __init__(self, facts: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> None:
        """``parts``: each has "x" (n, C, H, W) uint8 and "y" (n,), indices of classes."""
        self._facts, self._parts = facts, parts
        self.classes: list[str] = facts["classes"]
        self.unit, self.items = _("pictures"), len(parts["train"]["y"]) if parts else 0
        held_out = bool(parts) and len(parts["test"]["y"]) > 0
        self.judged_on = _("the test pictures") if held_out else _("the pictures it was trained on")
        weights = facts.get("class_weights")
        self._weights = torch.tensor(weights) if weights else None

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        if source is None:
            return None
        if pictures.is_folder_of_classes(source):
            return _("pictures, in a folder for each class")
        if not options.target or options.text or not tables.is_table(source):
            return None
        columns = pictures.columns_of(tables.read(source), options.target)
        return _("pictures, in the column {column}").format(column=columns[0].name) if columns else None

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> PictureTask:
        if source is None:
            raise PellucidError(_("There is nothing to learn from."), "", _("Name a folder of class folders."))
        side = options.picture_size
        found = pictures.read(source, options.target, (side, side) if side else None)
        for part, path in (("validation", options.validation), ("test", options.test)):
            if path:
                found = _with_part(found, PARTS.index(part), path, options)
        split = found.split(SHARES, options.seed)
        parts = {
            part: {
                "x": torch.from_numpy(found.pixels[rows]),
                "y": torch.from_numpy(found.labels[rows]),
            }
            for part in PARTS
            for rows in [getattr(split, part)]
        }
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for part, tensors in parts.items():
            write_tensors(folder / "data" / f"{part}.safetensors", tensors)
        mean, std = _mean_and_deviation(parts["train"]["x"])
        facts: dict[str, Any] = {
            "classes": found.classes,
            "picture": list(found.pixels.shape[1:]),
            "mean": mean,
            "std": std,
            "target": options.target,
            "rows": {part: len(parts[part]["y"]) for part in PARTS},
            "shift": _shift(found.pixels.shape[2:], len(split.train)),
            "held_out_items": len(split.validation) or len(split.train),
            "held_out": split.how,
            "notes": [*found.notes, *split.notes],
        }
        if options.class_weights:
            share_K = np.bincount(parts["train"]["y"].numpy(), minlength=len(found.classes)) / len(split.train)
            facts["class_weights"] = (1 / (len(found.classes) * np.maximum(share_K, 1e-9))).tolist()
        return PictureTask(facts, parts)

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> PictureTask:
        if facts:
            parts = {part: read_file(folder / "data" / f"{part}.safetensors", dtype=None) for part in PARTS}
            return PictureTask(facts, parts)
        config = read_json(folder / "config.json")
        if config.get("model_type") == efficientnet.MODEL_TYPE:
            side = config.get("image_size", efficientnet.FACTS["image_size"])
            classes = config.get("labels") or [str(n) for n in range(EfficientNetConfig.classes)]
            return PictureTask({"classes": classes, "picture": [3, side, side]}, {})
        return PictureTask(config["pellucid"], {})

    def save(self, folder: Path) -> None:
        """All that predicting needs is written into config.json by `save_network`."""

    # what the plan asks

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        channels, height, width = self._facts["picture"]
        said = _("{width} × {height} pixels, {colours}; {n} classes: {classes}").format(
            width=width,
            height=height,
            colours=_("grey") if channels == 1 else _("in colour"),
            n=len(self.classes),
            classes=tables.listed(self.classes, 12),
        )
        return [self._facts["held_out"], said]

    def designs(self, options: TrainOptions) -> list[Design]:
        (channels, height, width), n_classes = self._facts["picture"], len(self.classes)
        name, init = options.network or self._usual_network(), options.init or "default"
        check_initialisation(init)
        if name in PRESETS or not any(sign in name for sign in " ,;"):
            config = convnet_config(name, channels, height, width, n_classes, init)
        else:
            config = ConvNetConfig(channels, height, width, tuple(text.strip() for text in name.split(";")), init)
        if config.classes != n_classes:
            raise PellucidError(
                _("The network ends in {n} numbers; there are {classes} classes.").format(
                    n=config.classes, classes=n_classes
                ),
                "--network",
                _('End its last layer with "dense {classes}".').format(classes=n_classes),
            )
        tree = families.convnet(config)
        return [Design(asdict(config), counts.parameters(tree).total, 6.0 * compute.forward(tree).total, 1)]

    def _usual_network(self) -> str:
        channels, height, width = self._facts["picture"]
        small = height in LENET_SIDES and width in LENET_SIDES
        return "lenet5" if channels == 1 and small else "residual"

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        usual = (
            _("LeNet-5: enough for small grey pictures")
            if self._usual_network() == "lenet5"
            else _("a small residual network: for pictures in colour, and of any size")
        )
        return {
            "network": _("as given") if options.network else usual,
            "picture_size": _("as given") if options.picture_size else _("as they are"),
            "init": _("as given") if options.init else _("as suits the activation (He 2015, Glorot 2010)"),
            "shift": _("they are few; moved a little, each is a new one. They are not mirrored: a 2 would be no 2")
            if self._facts["shift"]
            else _("there are enough of them"),
        }

    def recipe(self, design: Design) -> Recipe:
        batch = min(128, max(16, 2 ** round(math.log2(max(1, self.items) / 30))))
        small = design.flops < 5e7
        return Recipe(
            "adam",
            3e-3,
            warmup=0.05,
            clip=None,
            batch=batch,
            passes=max(8, math.ceil(ENOUGH * batch / max(1, self.items))),
            precision="fp32" if small else None,
            threads=1 if small else None,  # a step is so short that cores would wait for each other
            why={
                "optimiser": _("reaches in few passes what SGD with momentum reaches in many"),
                "learning_rate": _("a usual one for small networks"),
                "batch": _("about 30 steps a pass over the pictures, 128 pictures at most"),
                "passes": _("{passes} passes over the pictures, of which the best state is kept"),
            },
        )

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        return 0.0, 0.0, _("none unless asked for: the best state on held-out pictures is kept")

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        if dropout:
            raise PellucidError(
                _("Dropout is a layer here."),
                "--dropout",
                _('Write it into --network, as in "...; flatten, dropout 0.5, dense 10".'),
            )
        return network

    def memory(self, plan: Plan) -> int:
        """Pictures are there twice, as they were read and as the run's own files; where they are few also scaled."""
        config, numbers = _config(plan), self._parts["train"]["x"].numel()
        scaled = 4 * numbers if numbers <= AT_HAND else 0
        data = scaled + 2 * sum(tensor.nbytes for part in self._parts.values() for tensor in part.values())
        inputs = config.channels * config.height * config.width
        training = peak.Training.of(plan, inputs, data, scores.LIBRARIES + max(scaled, 12 * AT_ONCE))
        return peak.forecast(families.convnet(config), training).total

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        config, why = _config(plan), plan.reasons
        name = next((name for name in PRESETS if self._is(name, config)), "; ".join(config.layers))
        moved = _("moved by up to {n} pixels").format(n=self._facts["shift"]) if self._facts["shift"] else _("as read")
        return [
            (_("network"), name, why.get("network", "")),
            (_("picture size"), f"{config.width} × {config.height}", why.get("picture_size", "")),
            (_("pictures"), moved, why.get("shift", "")),
            (_("initialisation"), config.initialisation, why.get("init", "")),
        ]

    def _is(self, name: str, config: ConvNetConfig) -> bool:
        try:
            usual = convnet_config(name, config.channels, config.height, config.width, config.classes)
            return usual.layers == config.layers
        except PellucidError:  # the pictures are too small for it
            return False

    # what the loop asks

    def network(self, plan: Plan) -> nn.Module:
        network = ConvNet(_config(plan), seed=plan.seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Scaled(network, Scaling(*(torch.tensor(self._facts[k])[:, None, None] for k in ("mean", "std"))))

    def save_network(self, network: Any, folder: Path) -> None:
        own = {"task": self.name} | {name: self._facts[name] for name in ("classes", "picture", "target")}
        save_plain(network, folder, {"model_type": "pellucid-convnet", **asdict(network.network.config)}, own)

    def open_network(self, folder: Path) -> nn.Module:
        if read_json(folder / "config.json").get("model_type") != efficientnet.MODEL_TYPE:
            return open_plain(folder)[0]
        network, _labels, kind = efficientnet.open_efficientnet(folder)
        mean, std = (255 * torch.tensor(kind[name])[:, None, None] for name in ("mean", "std"))
        return Scaled(network, Scaling(mean, std))

    def batches(self, split: str, plan: Plan) -> Shuffled:
        x_NCHW, y_N = self._parts[split]["x"], self._parts[split]["y"]
        shift = self._facts["shift"] if split == "train" else 0
        if shift:
            x_NCHW = torch.from_numpy(np.pad(x_NCHW.numpy(), ((0, 0), (0, 0), (shift, shift), (shift, shift)), "edge"))
        if x_NCHW.numel() <= AT_HAND:
            x_NCHW = self._scaled(x_NCHW)

        def take(rows: np.ndarray) -> tuple[Tensor, Tensor]:
            rows_B = torch.from_numpy(rows)
            x_BCHW = x_NCHW.index_select(0, rows_B)  # whole rows: several times as fast as x[rows]
            if shift:  # drawn from where the batches stand: a resumed training moves them the same
                x_BCHW = _moved(x_BCHW, shift, np.random.default_rng([plan.seed, batches.position["examples"]]))
            return self._scaled(x_BCHW), y_N.index_select(0, rows_B)

        batches = Shuffled(len(y_N), plan.batch, plan.seed, take)
        return batches

    def _scaled(self, x_NCHW: Tensor) -> Tensor:
        """Bytes as the network within sees them, by the arithmetic of `Scaling`; what is scaled stays as it is."""
        if x_NCHW.is_floating_point():
            return x_NCHW
        mean, std = (torch.tensor(self._facts[name])[:, None, None] for name in ("mean", "std"))
        return (x_NCHW - mean) / std

    def loss(self, network: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """Cross-entropy in nats, summed over the pictures; on scaled pixels."""
        device = network.inputs.shift.device
        x_BCHW, y_B = (tensor.to(device) for tensor in batch)
        return self._loss_of(network.network(x_BCHW), y_B)

    def _loss_of(self, logits_BK: Tensor, y_B: Tensor) -> tuple[Tensor, float]:
        weights = self._weights
        if weights is None:  # no target is masked: PyTorch's own sum, in one pass
            return F.cross_entropy(logits_BK, y_B, reduction="sum"), len(y_B)
        weights = weights.to(logits_BK.device)
        return cross_entropy(logits_BK, y_B, weights), count(y_B, weights)

    def metrics(self, network: Any, plan: Plan, whole: bool = False) -> dict[str, float]:
        """On validation pictures, or with ``whole`` the test pictures; on those trained on where none are held out."""
        part = self._parts[self._judging(whole)]
        n = len(part["y"])
        wanted = n if whole else max(1, min(n, plan.evaluate_items))
        chosen = np.unique(np.linspace(0, n - 1, wanted).round().astype(int))
        y_N = part["y"][chosen]
        logits_NK = self._logits(network, part["x"], chosen)
        loss, targets = self._loss_of(logits_NK, y_N)
        return {"error": (logits_NK.argmax(1) != y_N).double().mean().item(), "loss": loss.item() / targets}

    def _judging(self, whole: bool) -> str:
        return scores.judging(self._sizes, whole)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: len(part["y"]) for name, part in self._parts.items()}

    @torch.no_grad()
    def _logits(self, network: Any, x_NCHW: Tensor, rows: np.ndarray | None = None) -> Tensor:
        """(n, K) in fp32, of as many pictures at once as fit the caches."""
        rows = np.arange(len(x_NCHW)) if rows is None else rows
        at_once = max(1, AT_ONCE // (64 * x_NCHW[0].numel()))
        device = next(network.parameters()).device
        parts = np.array_split(rows, math.ceil(len(rows) / at_once))
        return torch.cat([network(x_NCHW[part].to(device).float()).float().cpu() for part in parts])

    def say(self, metrics: dict[str, float]) -> str:
        return _("{right}, loss {loss:.4g}").format(right=scores.right(metrics["error"]), loss=metrics["loss"])

    def next_command(self, folder: str) -> str:
        return f"pellucid predict {folder} PICTURE"

    def baselines(self, thorough: bool = False) -> Reference:
        """Always the commonest class; when ``thorough``, a linear model of the pixels."""
        part = self._judging(thorough)
        y_train, y_held = (self._parts[p]["y"].numpy() for p in ("train", part))
        return scores.class_reference(
            _("nats a picture"),
            len(self.classes),
            y_train,
            y_held,
            self._linear(part) if thorough else None,
            scores.judged_data(self._sizes),
        )

    def _linear(self, part: str) -> Rival:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        train = self._parts["train"]
        n = min(len(train["y"]), max(100, LINEAR // train["x"][0].numel()))
        chosen = np.unique(np.linspace(0, len(train["y"]) - 1, n).round().astype(int))
        name = _("a linear model of the pixels")
        if n < len(train["y"]):
            name = _("a linear model of the pixels, fitted to {n:,} of the pictures").format(n=n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near its best is good enough to compare with
            linear = LogisticRegression(C=0.01).fit(self._flat(train["x"][chosen]), train["y"][chosen].numpy())
        held_out = self._parts[part]
        wrong = linear.predict(self._flat(held_out["x"])) != held_out["y"].numpy()
        return Rival("linear_model", name, float(wrong.mean()))

    def _flat(self, x_NCHW: Tensor) -> np.ndarray:
        return self._scaled(x_NCHW).flatten(1).numpy()

    # what a user of the trained model asks

    def read(self, source: str) -> list[Given]:
        """One picture, those in and under a folder, or those of a table's column."""
        channels, *size = self._facts["picture"]
        names, pixels_NCHW = pictures.read_unlabelled(source, tuple(size), channels)
        return [Given(name, pixels_CHW) for name, pixels_CHW in zip(names, pixels_NCHW, strict=True)]

    def predict(self, network: Any, inputs: Sequence[Given | Path | bytes | Image]) -> list[Prediction]:
        """Each picture's class, with the probability of every class."""
        given = [self._given(one) for one in inputs]
        if not given:
            return []
        p_NK = self._logits(network.eval(), torch.from_numpy(np.stack([one.pixels for one in given]))).softmax(1)
        return [
            Prediction(one.name, self.classes[int(p_K.argmax())], dict(zip(self.classes, p_K.tolist(), strict=True)))
            for one, p_K in zip(given, p_NK, strict=True)
        ]

    def _given(self, one: Given | Path | bytes | Image) -> Given:
        if isinstance(one, Given):
            return one
        channels, height, width = self._facts["picture"]
        name = str(one) if isinstance(one, Path) else _("the picture")
        return Given(name, pictures.picture(one, (height, width), channels))

    def evaluate(self, network: Any, source: str | None = None) -> scores.ClassReport:
        """On the run's own test pictures, or on labelled ones."""
        if source is None:
            part = self._parts[self._judging(True)]
            x_NCHW, y_N = part["x"], part["y"]
        else:
            channels, *size = self._facts["picture"]
            found = pictures.read(source, self._facts.get("target"), tuple(size), channels, self.classes)
            x_NCHW, y_N = torch.from_numpy(found.pixels), torch.from_numpy(found.labels)
        logits_NK = self._logits(network.eval(), x_NCHW)
        loss = cross_entropy(logits_NK, y_N).item() / len(y_N)
        return scores.ClassReport.of(self.classes, y_N.numpy(), logits_NK.argmax(1).numpy(), loss)

    def explain(
        self,
        network: Any,
        inputs: Sequence[Given | Path | bytes | Image],
        value: str | None = None,
        rather_than: str | None = None,
    ) -> Explanation:
        """Why the first picture is of one class rather than of another, by region and pixel.

        Raises:
            PellucidError: when there is no such class.
        """
        from pellucid.tasks.explanation import difference, explained, two_classes
        from pellucid.tracing.trace import trace

        given = self._given(inputs[0])
        x_1CHW = torch.tensor(given.pixels)[None].float().to(next(network.parameters()).device)
        recorded = trace(network.eval(), x_1CHW)
        p_K = self._logits(network, torch.tensor(given.pixels)[None])[0].softmax(0).tolist()
        first, other = two_classes(self.classes, p_K, value, rather_than)
        asked = _("{a} rather than {b}").format(a=self.classes[first], b=self.classes[other])
        question = difference(recorded, asked, f":out[0,{first}]", f":out[0,{other}]")
        amounts_CHW = recorded.flow(question, exact=True).inputs[":in.0"][0]
        notes = [
            _("{name}: probability {p:.2%}").format(name=self.classes[class_], p=p_K[class_])
            for class_ in (first, other)
        ]
        return explained(
            asked, recorded, question, _regions(amounts_CHW), maps={"contributions": amounts_CHW}, notes=tuple(notes)
        )


def _with_part(found: pictures.Pictures, part: int, path: str, options: TrainOptions) -> pictures.Pictures:
    """The same pictures with those in ``path`` as their validation or test part, in place of one of their own."""
    more = pictures.read(path, options.target, found.pixels.shape[2:], found.pixels.shape[1], found.classes)
    own = np.zeros(len(found.labels), np.int64) if found.parts is None else found.parts
    kept = own != part
    return pictures.Pictures(
        np.concatenate([found.pixels[kept], more.pixels]),
        np.concatenate([found.labels[kept], more.labels]),
        found.classes,
        [name for name, keep in zip(found.names, kept, strict=True) if keep] + more.names,
        np.concatenate([own[kept], np.full(len(more.labels), part)]),
        found.notes + [note for note in more.notes if note not in found.notes],
    )


def _mean_and_deviation(x_NCHW: Tensor) -> tuple[list[float], list[float]]:
    """Of each channel, in steps of a byte."""
    histograms = [
        torch.bincount(x_NCHW[:, channel].flatten().int(), minlength=256) for channel in range(x_NCHW.shape[1])
    ]
    steps, weights = torch.arange(256.0, dtype=torch.float64), torch.stack(histograms).double()
    weights /= weights.sum(1, keepdim=True)
    mean_C = weights @ steps
    std_C = ((steps - mean_C[:, None]).square() * weights).sum(1).sqrt()
    return mean_C.tolist(), [std or 1.0 for std in std_C.tolist()]


def _shift(size: Sequence[int], n: int) -> int:
    """By how many pixels pictures are moved about while they are learned from."""
    return 0 if n >= MANY else max(1, min(size) // 20)


def _moved(edge_BCHW: Tensor, shift: int, generator: np.random.Generator) -> Tensor:
    """Each picture cut out at a place of its own."""
    height, width = (side - 2 * shift for side in edge_BCHW.shape[2:])
    places = generator.integers(0, 2 * shift + 1, (len(edge_BCHW), 2)).tolist()
    edges = zip(edge_BCHW.numpy(), places, strict=True)  # numpy cuts in a third of the time that torch takes
    return torch.from_numpy(np.stack([edge_CHW[:, y : y + height, x : x + width] for edge_CHW, (y, x) in edges]))


def _regions(amounts_CHW: Tensor) -> list[Any]:
    """What the pixels of each region add, by rows from the top left."""
    from pellucid.tasks.explanation import Part

    amounts_HW = amounts_CHW.sum(0)
    rows, columns = (np.array_split(np.arange(side), min(side, GRID)) for side in amounts_HW.shape)
    return [
        Part(
            _("rows {top}–{bottom}, columns {left}–{right}").format(
                top=y[0] + 1, bottom=y[-1] + 1, left=x[0] + 1, right=x[-1] + 1
            ),
            None,
            amounts_HW[y[0] : y[-1] + 1, x[0] : x[-1] + 1].sum().item(),
        )
        for y in rows
        for x in columns
    ]


def _config(plan: Plan) -> ConvNetConfig:
    unknown = plan.network.keys() ^ {f.name for f in fields(ConvNetConfig)}
    if unknown:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {', '.join(sorted(unknown))}",
            _("Give the plan.json of a run."),
        )
    return ConvNetConfig(**plan.network)
