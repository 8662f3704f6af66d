"""Tables: learn to predict one column, a number or a category, from the others."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.anatomy import counts, families
from pellucid.anatomy.memory import peak
from pellucid.checkpoints.files import read_file, read_json, write_tensors
from pellucid.checkpoints.plain import open_plain, save_plain
from pellucid.data import splits, tables
from pellucid.data.encoding import Encoding, fit
from pellucid.data.shuffled import Shuffled
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.dense import Dense, DenseConfig, in_units
from pellucid.networks.losses import LOSSES, count
from pellucid.networks.scaling import Scaled, Scaling
from pellucid.tasks import scores
from pellucid.tasks.explanation import Explanation, Part, difference, explained, one_number, two_classes
from pellucid.tasks.task import Design, Prediction, Recipe, Reference, Rival

if TYPE_CHECKING:
    from pellucid.tracing.trace import Trace
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

PARTS = ("train", "validation", "test")
NUMBERS = ("squared_error", "absolute")  # losses for numbers; the others are for classes
TWO_CLASSES = {"binary_cross_entropy": (0.0, 1.0), "hinge": (-1.0, 1.0), "perceptron": (-1.0, 1.0)}  # their targets
ENOUGH = 3000  # steps that bring small networks to their best, whatever the number of rows
# AdamW's decay of networks with more parameters than rows. Over 3 or 4 seeds, error on test rows without it and with
# it: Friedman's function with noise (400 rows) 2.49 and 1.63, diabetes 58.5 and 54.6, digits 4.1 % and 3.4 %, iris
# 4.8 % and 1.2 %; wine, breast cancer and a spiral as before. Twice as much blurs the spiral, and networks that are
# small for their rows (xor with 4 neurons) no longer fit.
DECAY = 0.5


class TableTask:
    """Rows in three parts, encoded; the network learns on scaled numbers and speaks in the user's units."""

    name: ClassVar[str] = "table"
    options: ClassVar[frozenset[str]] = frozenset(
        {"target", "columns", "validation", "test", "scaling", "layers", "activation", "norm", "bias", "init"}
        | {"loss", "class_weights"}
    )

    def __init__(
        self, encoding: Encoding, loss: str, facts: dict[str, Any], parts: dict[str, dict[str, Tensor]]
    ) -> None:
        """``parts``: each has "x" (n, F), in the user's units, and "y" (n,), numbers or indices of classes."""
        self.encoding, self._loss, self._facts, self._parts = encoding, loss, facts, parts
        self.unit, self.items = _("rows"), len(parts["train"]["y"]) if parts else 0
        held_out = bool(parts) and len(parts["test"]["y"]) > 0
        self.judged_on = _("the test rows") if held_out else _("the rows it was trained on")
        self._scaled = {part: self._scale(**tensors) for part, tensors in parts.items()}
        weights = facts.get("class_weights")
        self._weights = torch.tensor(weights) if weights else None

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        if (
            source is None
            or not tables.is_table(source)
            or options.text
            or (not options.target and _keeps_text(source))
        ):
            return None
        if not options.target:
            return _("a table")
        table = tables.read(source)
        kind, why = tables.kind_of_target(table, options.target)
        others = [column for column in table.columns if column.name != options.target]
        kinds = {column.kind for column in others} - {"ignored"}
        if kind == "text" or (kind == "category" and kinds and kinds <= {"text", "picture"}):
            return None
        return _("a table, because of its target: {why}").format(why=why)

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> TableTask:
        assert source is not None
        table = _chosen(tables.read(source), options)
        notes: list[str] = []
        if not options.target:
            raise PellucidError(
                _("Which column is to be predicted?"),
                source,
                _("Name one: --target COLUMN. The columns are: {columns}.").format(
                    columns=tables.listed(table.names, 30)
                ),
            )
        kind = None if options.loss is None else "number" if _known_loss(options.loss) in NUMBERS else "category"
        target = tables.target(table, options.target, kind)
        loss = options.loss or ("squared_error" if target.kind == "number" else "cross_entropy")
        if loss in TWO_CLASSES and len(target.classes) != 2:
            raise PellucidError(
                _("{loss} tells two classes apart; {column} has {n}.").format(
                    loss=loss, column=target.name, n=len(target.classes)
                ),
                "--loss",
                _("Use --loss cross_entropy."),
            )
        given = {"validation": options.validation, "test": options.test}
        shares = tuple(0.0 if given.get(part) else share for part, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True))
        columns = [table.column(name).values[target.rows] for name in table.names]
        found = splits.split(
            len(target.rows),
            target.values if target.kind == "category" else None,
            splits.groups_of(*columns),
            tuple(share / sum(shares) for share in shares),  # type: ignore[arg-type]
            options.seed,
            lambda index: target.classes[int(index)],
        )
        encoding = fit(table, target, target.rows[found.train], options.scaling or "standard", notes)
        x_NF, y_N = encoding.encode(table)[target.rows], target.values
        arrays = {
            part: (x_NF[rows], y_N[rows]) for part in PARTS if len(rows := getattr(found, part)) or part not in given
        }
        for part, path in given.items():
            if path:
                other = tables.read(path)
                true = encoding.targets(other)
                arrays[part] = encoding.encode(other, notes)[true.rows], true.values
            arrays.setdefault(part, (x_NF[:0], y_N[:0]))
        dtype = torch.float32 if target.kind == "number" else torch.int64
        parts = {
            part: {"x": torch.from_numpy(np.ascontiguousarray(x)), "y": torch.from_numpy(np.asarray(y)).to(dtype)}
            for part, (x, y) in arrays.items()
        }
        for part, tensors in parts.items():
            (folder / "data").mkdir(parents=True, exist_ok=True)
            write_tensors(folder / "data" / f"{part}.safetensors", tensors)
        facts: dict[str, Any] = {
            "rows": {part: len(parts[part]["y"]) for part in PARTS},
            "held_out_items": len(parts["validation"]["y"]) or len(parts["train"]["y"]),
            "held_out": found.how,
            "why": target.why,
            "loss": loss,
            "encoding": encoding.asdict(),
            "notes": [*table.notes, *target.notes, *notes, *found.notes],
        }
        if options.class_weights and target.kind == "category":
            share_K = np.bincount(parts["train"]["y"].numpy(), minlength=len(target.classes)) / len(found.train)
            facts["class_weights"] = (1 / (len(target.classes) * np.maximum(share_K, 1e-9))).tolist()
        return TableTask(encoding, loss, facts, parts)

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> TableTask:
        own = read_json(folder / "config.json")["pellucid"] if facts is None else facts
        names = () if facts is None else PARTS
        parts = {part: read_file(folder / "data" / f"{part}.safetensors", dtype=None) for part in names}
        return TableTask(Encoding.restore(own["encoding"]), _known_loss(own["loss"]), own, parts)

    def save(self, folder: Path) -> None:
        """All that predicting needs is written into config.json by `save_network`."""

    # what the plan asks

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        inputs = self.encoding.input_names
        return [
            self._facts["held_out"],
            _("{n} inputs: {names}").format(n=len(inputs), names=tables.listed(inputs, 12)),
        ]

    def designs(self, options: TrainOptions) -> list[Design]:
        config = DenseConfig(
            inputs=len(self.encoding.input_names),
            outputs=self._outputs,
            hidden=self._hidden(options),
            activation=options.activation or "relu",
            output_activation="step" if self._loss == "perceptron" else "linear",
            bias=options.bias,
            norm=None if options.norm in (None, "none") else options.norm,
            initialisation=options.init or ("zero" if self._loss == "perceptron" else "default"),
        )
        parameters = counts.parameters(families.dense(config)).total
        return [Design(asdict(config), parameters, 6.0 * parameters, 1)]

    @property
    def _outputs(self) -> int:
        return 1 if self._loss in NUMBERS or self._loss in TWO_CLASSES else len(self.encoding.classes)

    def _hidden(self, options: TrainOptions) -> tuple[int, ...]:
        if options.layers is None:
            return (
                ()
                if self._loss == "perceptron"
                else (16,)
                if self.items < 200
                else (32, 32)
                if self.items < 5000
                else (64, 64)
            )
        try:
            widths = tuple(int(width) for width in options.layers.split("-"))
        except ValueError:
            raise PellucidError(
                _("--layers {layers} cannot be read.").format(layers=options.layers),
                "--layers",
                _("Give the neurons of each hidden layer with a hyphen between, such as 16-8; or 0 for none."),
            ) from None
        return () if widths == (0,) else widths

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        given = _("as given")
        return {
            "layers": given
            if options.layers
            else _("small, for {n:,} rows: more learn them by heart").format(n=self.items),
            "activation": given if options.activation else _("the usual one"),
            "loss": given if options.loss else self._facts["why"],
            "scaling": given if options.scaling else _("mean 0 and deviation 1 on the training rows"),
            "init": given if options.init else _("as suits the activation (He 2015, Glorot 2010)"),
        }

    def recipe(self, design: Design) -> Recipe:
        line = not design.network["hidden"]
        batch = (
            self.items
            if line and self.items <= 64
            else min(256, max(8, 2 ** round(math.log2(max(1, self.items) / 32))))
        )
        passes = max(30, math.ceil(ENOUGH * batch / max(1, self.items)))
        why = {
            "batch": _("all rows at once: they are few")
            if batch >= self.items
            else _("{n} steps a pass over the rows").format(n=math.ceil(self.items / batch)),
            "passes": _("{passes} passes over the rows, of which the best state is kept"),
        }
        if self._loss == "perceptron":
            why |= {
                "optimiser": _("Rosenblatt's rule is this gradient step"),
                "learning_rate": _("any does: only ratios matter"),
            }
            return Recipe(
                "sgd",
                1.0,
                schedule="constant",
                clip=None,
                batch=1,
                passes=passes,
                precision="fp32",
                threads=1,
                judge_all=True,
                why=why,
            )
        if line and design.network["inputs"] <= 3 and self._loss == "squared_error":
            why |= {
                "optimiser": _("plain gradient descent finds the least squares"),
                "learning_rate": _("for scaled inputs"),
            }
            return Recipe(
                "sgd",
                0.3,
                schedule="constant",
                clip=None,
                batch=batch,
                passes=passes,
                precision="fp32",
                threads=1,
                judge_all=True,
                why=why,
            )
        why |= {"optimiser": _("robust for tables"), "learning_rate": _("a usual one for small networks")}
        held_out = len(self._parts["validation"]["y"]) > 0
        decay = held_out and not line and design.parameters > self.items and self.encoding.scaling != "none"
        if decay:
            why["weight_decay"] = _("more parameters than rows: weights that no row asks for fade")
        return Recipe(
            "adamw" if decay else "adam",
            3e-3 if not line else 1e-2,
            weight_decay=DECAY if decay else None,
            batch=batch,
            passes=passes,
            clip=None,
            precision="fp32",
            threads=1,
            judge_all=True,
            why=why,
        )

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        return 0.0, 0.0, _("none unless asked for: the best state on held-out rows is kept")

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        return {**network, "dropout": dropout}

    def memory(self, plan: Plan) -> int:
        """The rows, raw and scaled, are there twice: as they were read, and as the run's own files."""
        config = _config(plan)
        raw = [tensor for part in self._parts.values() for tensor in part.values()]
        scaled = [tensor for part in self._scaled.values() for tensor in part]
        judged = scores.LIBRARIES + 4 * max(self._sizes.values()) * 2 * max(config.widths)
        data = 2 * sum(tensor.nbytes for tensor in (*raw, *scaled))
        training = peak.Training.of(plan, config.inputs, data, judged)
        return peak.forecast(families.dense(config), training).total

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        config, why = _config(plan), plan.reasons
        return [
            (_("network"), "-".join(map(str, config.widths)), why.get("layers", "")),
            (
                _("activation"),
                ", ".join(dict.fromkeys(config.activations)),
                why.get("activation", ""),
            ),
            (_("loss"), self._loss, why.get("loss", "")),
            (_("scaling"), self.encoding.scaling, why.get("scaling", "")),
            (_("initialisation"), config.initialisation, why.get("init", "")),
            (_("dropout"), f"{config.dropout:g}", why.get("dropout", "")),
        ]

    # what the loop asks

    def network(self, plan: Plan) -> Scaled:
        encoding = self.encoding
        outputs = Scaling([encoding.target_shift], [encoding.target_scale]) if encoding.kind == "number" else None
        return Scaled(
            Dense(_config(plan), seed=plan.seed), Scaling(encoding.shifts.tolist(), encoding.scales.tolist()), outputs
        )

    def save_network(self, network: Any, folder: Path) -> None:
        own = {"task": self.name, "encoding": self.encoding.asdict(), "loss": self._loss}
        save_plain(network, folder, {"model_type": "pellucid-dense", **asdict(network.network.config)}, own)

    def open_network(self, folder: Path) -> nn.Module:
        network: Any = open_plain(folder)[0]
        expected = (len(self.encoding.input_names), self._outputs)
        if (network.network.config.inputs, network.network.config.outputs) != expected:
            raise PellucidError(
                _("{name} is damaged: {why}.").format(
                    name="config.json", why=_("the columns do not fit the network's inputs and outputs")
                ),
                str(folder / "config.json"),
                _("Copy or download it again."),
            )
        return network

    def batches(self, split: str, plan: Plan) -> Shuffled:
        x_NF, y_N = self._scaled[split]
        return Shuffled(len(y_N), plan.batch, plan.seed, lambda rows: (x_NF[rows], y_N[rows]))

    def loss(self, network: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """On scaled numbers: 1/2 (y - a)² of a target with deviation 1, or nats of a class."""
        x_BF, y_B = batch
        return self._loss_of(network.network.scores(x_BF), y_B)

    def examples(self, batch: tuple[Tensor, Tensor]) -> list[dict[str, Any]]:
        """A batch's rows as the user knows them: inputs and target in their own units, classes by name."""
        encoding = self.encoding
        x_BF = batch[0] * torch.from_numpy(encoding.scales) + torch.from_numpy(encoding.shifts)
        if encoding.kind == "number":
            said = (batch[1].double() * encoding.target_scale + encoding.target_shift).tolist()
        else:
            said = [encoding.classes[int(y > 0 if self._loss in TWO_CLASSES else y)] for y in batch[1]]
        names = [*encoding.input_names, encoding.target]
        return [dict(zip(names, [*row, y], strict=True)) for row, y in zip(x_BF.tolist(), said, strict=True)]

    def points(self, part: str) -> tuple[Tensor, Tensor]:
        """The rows of "train", "validation" or "test": inputs (n, F) in the user's units, numbers or classes (n,)."""
        return self._parts[part]["x"], self._parts[part]["y"]

    def in_units(self, network: Any) -> tuple[nn.Module, list[str], list[str]]:
        """The network that takes and gives the user's units, and the names of its inputs and outputs."""
        outputs = self.encoding.classes if self._loss == "cross_entropy" else [self.encoding.target]
        return _in_units(network), self.encoding.input_names, list(outputs)

    def _loss_of(self, outputs_BO: Tensor, y_B: Tensor) -> tuple[Tensor, float]:
        weights = self._weights
        return LOSSES[self._loss](outputs_BO, y_B, weights), count(y_B, weights)

    def _scale(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets as the network sees them."""
        encoding = self.encoding
        x = (x - torch.from_numpy(encoding.shifts)) / torch.from_numpy(encoding.scales)
        if self._loss in NUMBERS:
            y = (y - encoding.target_shift) / encoding.target_scale
        elif self._loss in TWO_CLASSES:
            low, high = TWO_CLASSES[self._loss]
            y = torch.where(y > 0, high, low)
        return x, y

    def metrics(self, network: Any, plan: Plan, whole: bool = False) -> dict[str, float]:
        """On the validation rows, or with ``whole`` the test rows; on the training rows where none are held out."""
        return self._metrics_on(network, self._judging(whole))

    def training_metrics(self, network: Any, plan: Plan) -> dict[str, float]:
        """The same figures on the training rows."""
        return self._metrics_on(network, "train")

    @torch.no_grad()
    def _metrics_on(self, network: Any, part: str) -> dict[str, float]:
        x_NF, y_N = self._scaled[part]
        outputs_NO = network.network.scores(x_NF)
        loss, n = self._loss_of(outputs_NO, y_N)
        mean = loss.item() / n
        if self.encoding.kind == "number":
            wrong = (outputs_NO[:, 0] - y_N).double() * self.encoding.target_scale
            return {"rmse": wrong.square().mean().sqrt().item(), "loss": mean}
        return {"error": (self._said(outputs_NO) != self._parts[part]["y"]).double().mean().item(), "loss": mean}

    def _judging(self, whole: bool) -> str:
        return scores.judging(self._sizes, whole)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: len(part["y"]) for name, part in self._parts.items()}

    def _said(self, outputs_NO: Tensor) -> Tensor:
        """The index of the class that the outputs say."""
        return outputs_NO.argmax(1) if outputs_NO.shape[1] > 1 else (outputs_NO[:, 0] > 0).long()

    def say(self, metrics: dict[str, float]) -> str:
        if "rmse" in metrics:
            return _("{column} off by {error:.4g} (RMSE)").format(column=self.encoding.target, error=metrics["rmse"])
        return _("{right}, loss {loss:.4g}").format(right=scores.right(metrics["error"]), loss=metrics["loss"])

    def _show(self, figure: float) -> str:
        if self.encoding.kind == "category":
            return scores.right(figure)
        return _("RMSE {error:.4g}").format(error=figure)

    def next_command(self, folder: str) -> str:
        example = ",".join(f"{part.column}=…" for part in self.encoding.inputs[:3])
        return f'pellucid predict {folder} "{example}"'

    def baselines(self, thorough: bool = False) -> Reference:
        """Always the mean or the commonest class; a linear model (of many rows only when ``thorough``)."""
        part = self._judging(thorough)
        (x_train, y_train), (x_held, y_held) = (
            (self._scaled[p][0].double().numpy(), self._parts[p]["y"].numpy()) for p in ("train", part)
        )
        if self.encoding.kind == "number":
            return self._reference_for_numbers(x_train, y_train.astype(float), x_held, y_held.astype(float))
        linear = None
        if thorough or x_train.size < 200_000:
            from sklearn.linear_model import LogisticRegression

            fitted = LogisticRegression(max_iter=1000).fit(x_train, y_train)
            linear = Rival("linear_model", _("a linear model"), float((fitted.predict(x_held) != y_held).mean()))
        data = scores.judged_data(self._sizes)
        found = scores.class_reference(_("nats a row"), len(self.encoding.classes), y_train, y_held, linear, data)
        if self._loss in ("cross_entropy", "binary_cross_entropy"):
            return found
        return replace(found, unit=_("a row"), simple=1.0, even=None)

    def _reference_for_numbers(self, x_train: Any, y_train: Any, x_held: Any, y_held: Any) -> Reference:
        scale = self.encoding.target_scale
        mean_off = float(np.sqrt(((y_held - y_train.mean()) ** 2).mean()))
        solved, *_rest = np.linalg.lstsq(np.c_[x_train, np.ones(len(x_train))], y_train, rcond=None)
        linear_off = float(np.sqrt(((np.c_[x_held, np.ones(len(x_held))] @ solved - y_held) ** 2).mean()))
        scaled = np.abs(y_held - y_train.mean()) / scale
        return Reference(
            unit=_("a row"),
            simple=float((scaled**2 / 2 if self._loss == "squared_error" else scaled).mean()),
            simple_said=_("the mean"),
            figure="rmse",
            show=self._show,
            rivals=(
                Rival("mean", _("always the mean"), mean_off),
                Rival("linear_model", _("a linear model"), linear_off),
            ),
            decisive=True,
            data=scores.judged_data(self._sizes),
        )

    # what a user of the trained model asks

    def read(self, source: str) -> tables.Table:
        """A table's file; or one row, as `height=170,sex=F` or a JSON object."""
        if os.path.exists(source) or (tables.is_table(source) and "=" not in source):
            return tables.read(source)
        return tables.from_rows([_row(source)])

    @torch.no_grad()
    def predict(self, network: Any, inputs: tables.Table | list[dict[str, Any]]) -> list[Prediction]:
        """Each row's class with probabilities, or its number in the user's units."""
        table = _table(inputs)
        x_NF = torch.from_numpy(self.encoding.encode(table))
        given = [_shown_row(table, n, self.encoding) for n in range(len(table))]
        notes = self.encoding.unknown(table)
        if self.encoding.kind == "number":
            values = network(x_NF)[:, 0].tolist()
            return [Prediction(*row[:2], notes=row[2]) for row in zip(given, values, notes, strict=True)]
        outputs_NO = network.network.scores(network.inputs(x_NF))
        names = self.encoding.classes
        said = [names[int(k)] for k in self._said(outputs_NO)]
        if self._loss == "cross_entropy":
            p_NK = outputs_NO.softmax(1)
        elif self._loss == "binary_cross_entropy":
            p_NK = torch.cat([(-outputs_NO).sigmoid(), outputs_NO.sigmoid()], 1)
        else:
            return [Prediction(*row[:2], notes=row[2]) for row in zip(given, said, notes, strict=True)]  # only a side
        return [
            Prediction(row, value, dict(zip(names, p_K.tolist(), strict=True)), note)
            for row, value, p_K, note in zip(given, said, p_NK, notes, strict=True)
        ]

    def evaluate(self, network: Any, source: str | None = None) -> scores.ClassReport | scores.NumberReport:
        """On the run's own test rows, or on a table with the target's column."""
        if source is None:
            part = self._parts[self._judging(True)]
            x_NF, y_N = part["x"], part["y"]
        else:
            table = tables.read(source)
            true = self.encoding.targets(table)
            x_NF, y_N = torch.from_numpy(self.encoding.encode(table)[true.rows]), torch.from_numpy(true.values)
        with torch.no_grad():
            if self.encoding.kind == "number":
                return scores.NumberReport.of(
                    self.encoding.target, y_N.double().numpy(), network(x_NF)[:, 0].double().numpy()
                )
            outputs_NO = network.network.scores(network.inputs(x_NF))
            loss, n = self._loss_of(outputs_NO, self._scale(x_NF, y_N)[1])
            return scores.ClassReport.of(
                self.encoding.classes, y_N.numpy(), self._said(outputs_NO).numpy(), loss.item() / n
            )

    def trace(self, network: Any, inputs: tables.Table | list[dict[str, Any]]) -> Trace:
        """The first row, run by the network that works in the user's units and recorded."""
        from pellucid.tracing.trace import trace

        return trace(_in_units(network), torch.from_numpy(self.encoding.encode(_table(inputs))[:1]))

    def explain(
        self, network: Any, inputs: tables.Table | list[dict[str, Any]], value: str | None, rather_than: str | None
    ) -> Explanation:
        """The number, or why one class rather than another, by the table's columns."""
        table = _table(inputs)
        if self.encoding.kind == "number" and (value or rather_than):
            raise PellucidError(
                _("{column} is a number: there are no classes to choose from.").format(column=self.encoding.target),
                value or rather_than or "",
                _("Ask without naming a class."),
            )
        trace = self.trace(network, table)
        threshold = None
        if self.encoding.kind == "number":
            asked, question = self.encoding.target, one_number(trace, ":out[0,0]")
        elif len(trace[":out"][0]) > 1:
            classes = self.encoding.classes
            a, b = two_classes(classes, trace[":out"][0].tolist(), value, rather_than)
            asked = _("{a} rather than {b}").format(a=classes[a], b=classes[b])
            question = difference(trace, asked, f":out[0,{a}]", f":out[0,{b}]")
        else:
            asked = _("{a} rather than {b}").format(a=self.encoding.classes[1], b=self.encoding.classes[0])
            question, threshold = one_number(trace, ":out[0,0]"), 0.0
            if self._loss == "perceptron":  # a step compares its sum with its threshold, and gives 0 or 1
                last = _in_units(network).layers[-1]
                question = one_number(trace, f"layers.{len(network.network.layers) - 1}.linear[0,0]")
                threshold = 0.0 if last.threshold is None else last.threshold.item()
        amounts_F = trace.flow(question, exact=True).inputs.get(":in.0")
        amounts_F = torch.zeros(len(self.encoding.input_names)) if amounts_F is None else amounts_F[0]
        given = _shown_row(table, 0, self.encoding)
        parts = [
            Part(column, _("(missing)") if given[column] is None else given[column], float(amounts_F[indices].sum()))
            for column, indices in self.encoding.groups.items()
        ]
        notes = self.encoding.unknown(table)[0]
        if len(table) > 1:
            notes += (_("This is the first of {n:,} rows.").format(n=len(table)),)
        return explained(asked, trace, question, parts, threshold=threshold, notes=notes)


def _table(inputs: tables.Table | list[dict[str, Any]]) -> tables.Table:
    return inputs if isinstance(inputs, tables.Table) else tables.from_rows(inputs)


def _in_units(network: Scaled) -> Any:
    """The network without scaling around it: its first and last weights are per unit of the user's columns."""
    return in_units(network.network, network.inputs, network.outputs).eval()  # type: ignore[arg-type]


def _keeps_text(source: str) -> bool:
    """Files that a language model may be trained on as well: without a target they are left to it."""
    return Path(source).suffix.lower() not in (".csv", ".tsv")


def _chosen(table: tables.Table, options: TrainOptions) -> tables.Table:
    """The table with the columns that the user wants."""
    if not options.columns or not options.target:
        return table
    names = [*filter(None, map(str.strip, options.columns.split(","))), options.target]
    return tables.Table(table.name, [table.column(name) for name in dict.fromkeys(names)], table.notes)


def _known_loss(name: str) -> str:
    if name not in LOSSES:
        raise PellucidError(
            _("There is no loss {name!r}.").format(name=name),
            "--loss",
            _("Use one of {names}.").format(names=", ".join(LOSSES)),
        )
    return name


def _config(plan: Plan) -> DenseConfig:
    known = {f.name for f in fields(DenseConfig)}
    if not plan.network.keys() <= known:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {', '.join(sorted(plan.network.keys() - known))}",
            _("Give the plan.json of a run."),
        )
    return DenseConfig(**plan.network)


def _row(text: str) -> dict[str, Any]:
    """One row as a user types it."""
    try:
        if text.lstrip().startswith("{"):
            found = json.loads(text)
            if isinstance(found, dict):
                return found
        pairs = [part.split("=", 1) for part in text.split(",")]
        row = {name.strip(): _value(value.strip()) for name, value in pairs}
    except ValueError:
        raise PellucidError(
            _("This is neither a table's file nor a row."),
            text,
            _('Name a .csv, .jsonl or .parquet, or give a row as "height=170,sex=F" or as JSON.'),
        ) from None
    if len(row) < len(pairs):
        raise PellucidError(_("A column is named twice."), text, _("Give each column one value."))
    return row


def _value(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _shown_row(table: tables.Table, row: int, encoding: Encoding) -> dict[str, Any]:
    """The columns that the network reads, as the user gave them."""
    found = {}
    for part in encoding.inputs:
        value = table.column(part.column).values[row]
        found[part.column] = (
            None if value is None or value != value else float(value) if isinstance(value, float) else value
        )
    return found
