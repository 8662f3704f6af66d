"""Texts with a category: learn to tell what kind of text one is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.anatomy import counts, families
from pellucid.anatomy.memory.peak import PROCESS
from pellucid.checkpoints.encoder import (
    open_classifier,
    open_encoder,
    read_encoder_config,
    read_labels,
    save_encoder,
)
from pellucid.checkpoints.files import read_file, read_json, write_tensors
from pellucid.data import splits, tables
from pellucid.data.by_length import ByLength
from pellucid.data.framed import FramedTokenizer
from pellucid.data.pairs import Labelled, read_labelled
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig, mean_over_tokens
from pellucid.networks.losses import count, cross_entropy
from pellucid.tasks import scores
from pellucid.tasks.task import Design, Prediction, Recipe, Reference, Rival

if TYPE_CHECKING:
    from pellucid.tasks.explanation import Explanation
    from pellucid.tracing.trace import Trace
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

Batch = tuple[Tensor, Tensor, Tensor]  # ids_BT, mask_BT, classes_B

PARTS = ("train", "validation", "test")
SHARES = (0.7, 0.15, 0.15)
LONGEST = 256  # tokens, where the user says nothing
STEPS = 800  # after which an encoder of this size knows as much of few texts as it ever will
JUDGED = 1000  # held-out texts are enough to tell which state is best
HIDDEN = 0.2  # share of a text's tokens hidden from a step, so that no word alone decides what is learned
SMOOTHING = 0.1  # of the classes it learns from, so that it does not grow surer than it has reason to (Szegedy 2016)
AT_ONCE = 64  # texts in a batch that learns nothing
# scripts that put no spaces between words: Thai to Khmer, kana, Chinese characters
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Part:
    """Texts, cut to the context, and their classes."""

    ids: list[list[int]]
    classes: Tensor  # (n,) int64
    texts: list[str]  # whole

    def __len__(self) -> int:
        return len(self.texts)

    def save(self, path: Path) -> None:
        spelled = [text.encode() for text in self.texts]
        write_tensors(
            path,
            {
                "ids": torch.tensor([id for ids in self.ids for id in ids], dtype=torch.int32),
                "lengths": torch.tensor([len(ids) for ids in self.ids], dtype=torch.int64),
                "classes": self.classes,
                "text": torch.frombuffer(bytearray(b"".join(spelled)), dtype=torch.uint8)
                if any(spelled)
                else torch.zeros(0, dtype=torch.uint8),
                "text_lengths": torch.tensor([len(text) for text in spelled], dtype=torch.int64),
            },
        )

    @classmethod
    def open(cls, path: Path) -> Part:
        found = read_file(path, dtype=None)
        ids = [part.tolist() for part in found["ids"].split(found["lengths"].tolist())]
        texts = [bytes(part.numpy()).decode() for part in found["text"].split(found["text_lengths"].tolist())]
        return cls(ids, found["classes"], texts)


class LabelTask:
    """Texts in three parts and their classes; an encoder of BERT's kind reads a text and says its class."""

    name: ClassVar[str] = "labels"
    options: ClassVar[frozenset[str]] = frozenset(
        {"text", "target", "validation", "test", "tokenizer", "vocab", "width", "depth", "heads", "feed_forward"}
        | {"context", "start_from", "class_weights"}
    )

    def __init__(
        self, tokenizer: FramedTokenizer, classes: list[str], facts: dict[str, Any], parts: dict[str, Part]
    ) -> None:
        """``facts``: "context" (the tokens of a text that are read) and "column", for whoever only predicts."""
        self.tokenizer, self.classes, self._facts, self._parts = tokenizer, classes, facts, parts
        self.unit, self.items = _("texts"), len(parts["train"]) if parts else 0
        held_out = bool(parts) and len(parts["test"]) > 0
        self.judged_on = _("the test texts") if held_out else _("the texts it was trained on")
        weights = facts.get("class_weights")
        self._weights = torch.tensor(weights) if weights else None

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        if source is None or not options.target or not tables.is_table(source):
            return None
        table = tables.read(source)
        kind, why = tables.kind_of_target(table, options.target)
        others = [column.kind for column in table.columns if column.name != options.target]
        if kind != "category" or not (options.text or "text" in others):
            return None
        return _("texts with a category, because of their target: {why}").format(why=why)

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> LabelTask:
        if source is None or not options.target:
            raise PellucidError(
                _("Which column holds the category of the texts?"),
                source or "SOURCE",
                _("Name a table of texts, and the column: --target COLUMN."),
            )
        read = read_labelled(source, options.target, options.text)
        given = {"validation": options.validation, "test": options.test}
        shares = tuple(0.0 if given.get(part) else share for part, share in zip(PARTS, SHARES, strict=True))
        found = splits.split(
            len(read.texts),
            read.labels,
            read.groups,
            tuple(share / sum(shares) for share in shares),  # type: ignore[arg-type]
            options.seed,
            lambda index: read.classes[int(index)],
        )
        chosen = {part: _rows(read, getattr(found, part)) for part in PARTS}
        for part, path in given.items():
            if path:
                other = read_labelled(path, options.target, read.column, read.classes)
                chosen[part] = _rows(other, np.arange(len(other.texts)))
        train, train_classes = chosen["train"]
        tokenizer, why = _tokenizer(train, options)
        ids = {part: tokenizer.encode_all(texts) for part, (texts, _classes) in chosen.items()}
        context = _context(ids["train"], options)
        longer = sum(len(one) > context for part in ids.values() for one in part)
        notes = [*read.notes, *found.notes]
        if longer:
            notes.append(
                _("{n:,} of {all:,} texts are longer than {context} tokens: only their beginnings are read.").format(
                    n=longer, all=sum(map(len, ids.values())), context=context
                )
            )
        facts: dict[str, Any] = {
            "texts": {part: len(texts) for part, (texts, _classes) in chosen.items()},
            "held_out_items": len(chosen["validation"][0]) or len(train),
            "held_out": found.how,
            "classes": read.classes,
            "column": read.column,
            "target": options.target,
            "context": context,
            "mean_length": sum(min(len(one), context) for one in ids["train"]) / len(train),
            "tokenizer": tokenizer.digest,
            "vocabulary_why": why,
            "fine_tuned": options.start_from is not None,
            "notes": notes,
        }
        if options.class_weights:
            share_K = np.bincount(train_classes, minlength=len(read.classes)) / len(train)
            facts["class_weights"] = (1 / (len(read.classes) * np.maximum(share_K, 1e-9))).tolist()
        parts = {
            part: Part([_cut(one, context) for one in ids[part]], torch.from_numpy(classes), texts)
            for part, (texts, classes) in chosen.items()
        }
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for name, made in parts.items():
            made.save(folder / "data" / f"{name}.safetensors")
        task = LabelTask(tokenizer, read.classes, facts, parts)
        task.save(folder)
        return task

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> LabelTask:
        tokenizer = FramedTokenizer.open(folder)
        if facts:
            parts = {part: Part.open(folder / "data" / f"{part}.safetensors") for part in PARTS}
            return LabelTask(tokenizer, facts["classes"], facts, parts)
        own = read_json(folder / "config.json").get("pellucid") or {}
        config = read_encoder_config(folder)
        own = {"context": config.context, "column": "text", "target": "label"} | own
        return LabelTask(tokenizer, read_labels(folder), own, {})

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder, self._facts["context"])

    # what the plan asks

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        return [
            self._facts["held_out"],
            _("{n} classes: {names}").format(n=len(self.classes), names=tables.listed(self.classes, 12)),
            _("{n:.0f} tokens in a text, on average").format(n=self._facts["mean_length"]),
        ]

    def designs(self, options: TrainOptions) -> list[Design]:
        config = self._config(options)
        parameters = counts.parameters(families.encoder(config)).total
        inside = parameters - (config.vocab_size + config.context) * config.d_model
        return [Design(asdict(config), parameters, 6.0 * inside * self._facts["mean_length"], 1)]

    def _config(self, options: TrainOptions) -> EncoderConfig:
        classes = len(self.classes)
        if options.start_from:
            config = read_encoder_config(options.start_from)
            return replace(config, classes=classes, pooling="first")
        width = options.width or 128
        heads = options.heads or max(n for n in range(1, max(1, width // 32) + 1) if width % n == 0)
        if width % heads:
            raise PellucidError(
                _("Width {width} cannot be shared by {heads} heads.").format(width=width, heads=heads),
                "--width, --heads",
                _("The width must be a multiple of the heads."),
            )
        return EncoderConfig(
            vocab_size=self.tokenizer.vocab_size,
            d_model=width,
            n_layers=options.depth or 1,
            n_heads=heads,
            d_ff=options.feed_forward or 4 * width,
            context=self._facts["context"],
            pad_id=self.tokenizer.pad_id,
            classes=classes,
        )

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        given = _("as given")
        if options.start_from:
            as_there = _("as in {folder}").format(folder=options.start_from)
            return dict.fromkeys(("network", "vocabulary", "heads"), as_there) | {"context": self._why_context(options)}
        return {
            "network": given
            if options.width and options.depth
            else _("small, for {n:,} texts: more learn them by heart").format(n=self.items),
            "vocabulary": self._facts["vocabulary_why"],
            "heads": given
            if options.heads
            else _("of {size} numbers each").format(size=design.network["d_model"] // design.network["n_heads"]),
            "context": self._why_context(options),
        }

    def _why_context(self, options: TrainOptions) -> str:
        if options.context:
            return _("as given")
        return _("nine texts of ten are no longer; at most {most}").format(most=LONGEST)

    def recipe(self, design: Design) -> Recipe:
        if self._facts["fine_tuned"]:
            why = {
                "optimiser": _("what BERT is fine-tuned with"),
                "learning_rate": _("a usual one for fine-tuning (Devlin et al. 2018)"),
                "batch": _("as in fine-tuning BERT (Devlin et al. 2018)"),
                "passes": _("{passes} passes over the texts: more make it forget what it knew"),
            }
            return Recipe("adamw", 5e-5, warmup=0.1, decay=0.9, batch=32, passes=4, why=why)
        batch = 32
        passes = max(3, min(40, round(STEPS * batch / self.items)))
        why = {
            "optimiser": _("the usual one for encoders"),
            "learning_rate": _("found on mails and reviews of this size"),
            "batch": _("small batches of similar length: little padding, many steps"),
            "passes": _("{passes} passes over the texts, of which the best state is kept"),
        }
        return Recipe("adamw", 1e-3, warmup=0.05, decay=0.95, batch=batch, passes=passes, why=why)

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        if self._facts["fine_tuned"]:
            return 0.1, 0.01, _("as in fine-tuning BERT (Devlin et al. 2018)")
        return 0.3, 0.1, _("the texts are few, and passed over {passes:.1f} times").format(passes=passes)

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        return {**network, "dropout": dropout}

    def memory(self, plan: Plan) -> int:
        config, length = _settings(plan), self._facts["context"]
        a_token = 4 * config.n_layers * (12 * config.d_model + 3 * config.d_ff + 2 * config.n_heads * length)
        data = sum(8 * len(one) for part in self._parts.values() for one in part.ids)
        return PROCESS + data + 16 * plan.parameters + max(plan.batch, AT_ONCE) * length * a_token

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        network, why = plan.network, plan.reasons
        shape = _("layers: {depth}, width: {width}").format(depth=network["n_layers"], width=network["d_model"])
        return [
            (_("network"), shape, why.get("network", "")),
            (_("vocabulary"), f"{network['vocab_size']:,}", why.get("vocabulary", "")),
            (_("heads"), str(network["n_heads"]), why.get("heads", "")),
            (_("context"), _("{n} tokens").format(n=self._facts["context"]), why.get("context", "")),
            (_("dropout"), f"{network['dropout']:g}", why.get("dropout", "")),
            *self._tricks(),
        ]

    def _tricks(self) -> list[tuple[str, str, str]]:
        """What keeps a network that begins from nothing from learning the texts by heart."""
        if self._facts["fine_tuned"]:
            return []
        return [
            (_("hidden"), f"{HIDDEN:.0%}", _("of the tokens, in a step: no word alone is relied on")),
            (_("smoothing"), f"{SMOOTHING:g}", _("of the classes learned from: it does not grow too sure")),
        ]

    # what the loop asks

    def network(self, plan: Plan) -> Classifier:
        network = Classifier(_settings(plan), seed=plan.seed)
        if plan.start_from:
            source = Path(plan.start_from)
            if read_encoder_config(source).pooling == "first" and read_labels(source) == self.classes:
                network.load_state_dict(open_classifier(source).state_dict())
            else:
                network.encoder.load_state_dict(open_encoder(source).state_dict())
        else:
            _scale_to_width(network)
        return network

    def save_network(self, network: Any, folder: Path) -> None:
        own = {key: self._facts[key] for key in ("context", "column", "target")}
        save_encoder(network, folder, self.classes, {"task": self.name, **own})

    def open_network(self, folder: Path) -> nn.Module:
        return open_classifier(folder) if read_encoder_config(folder).classes else open_encoder(folder)

    def batches(self, split: str, plan: Plan) -> ByLength:
        part = self._parts[split]
        lengths_N = np.array([len(ids) for ids in part.ids])
        return ByLength(lengths_N, plan.batch, plan.seed, lambda rows: self._batch(part, rows.tolist()))

    def _batch(self, part: Part, rows: Sequence[int]) -> Batch:
        return *self._padded([part.ids[row] for row in rows]), part.classes[rows]

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and the mask that is true where there is a token: both (B, T)."""
        lengths_B1 = torch.tensor([[len(one)] for one in ids])
        longest = int(lengths_B1.max())
        ids_BT = torch.tensor([[*one, *[self.tokenizer.pad_id] * (longest - len(one))] for one in ids])
        return ids_BT, torch.arange(longest) < lengths_B1

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        """Nats of the classes; while a new network learns, of texts with some tokens hidden and smoothed classes."""
        device = next(network.parameters()).device
        ids_BT, mask_BT, classes_B = batch
        learning = network.training and not self._facts["fine_tuned"]
        if learning:
            mask_BT = _without_some(mask_BT, HIDDEN)
        ids_BT, mask_BT, classes_B = (tensor.to(device) for tensor in (ids_BT, mask_BT, classes_B))
        weights = self._weights.to(device) if self._weights is not None else None
        loss = cross_entropy(network(ids_BT, mask_BT), classes_B, weights, SMOOTHING if learning else 0.0)
        return loss, count(classes_B, weights)

    def metrics(self, network: nn.Module, plan: Plan, whole: bool = False) -> dict[str, float]:
        """On the validation texts (at least ``JUDGED`` of them), or with ``whole`` on the test texts."""
        part = self._parts[self._judging(whole)]
        wanted = len(part) if whole else min(len(part), max(plan.evaluate_items, JUDGED))
        rows = np.unique(np.linspace(0, len(part) - 1, wanted).round().astype(int))
        logits_NK, classes_N = self._logits(network, [part.ids[row] for row in rows]), part.classes[rows]
        loss = cross_entropy(logits_NK, classes_N, self._weights).item() / count(classes_N, self._weights)
        return {"error": (logits_NK.argmax(1) != classes_N).double().mean().item(), "loss": loss}

    def _judging(self, whole: bool) -> str:
        return scores.judging(self._sizes, whole)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: len(part) for name, part in self._parts.items()}

    @torch.no_grad()
    def _logits(self, network: nn.Module, ids: Sequence[Sequence[int]]) -> Tensor:
        """Of all classes, (N, K), on the CPU; texts of similar length go through the network together."""
        network.eval()
        device = next(network.parameters()).device
        order = np.argsort([len(one) for one in ids], kind="stable")
        found = torch.empty(len(ids), len(self.classes))
        for start in range(0, len(ids), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            ids_BT, mask_BT = self._padded([ids[row] for row in rows])
            found[rows] = network(ids_BT.to(device), mask_BT.to(device)).float().cpu()
        return found

    def say(self, metrics: dict[str, float]) -> str:
        return _("{right}, loss {loss:.4g}").format(right=scores.right(metrics["error"]), loss=metrics["loss"])

    def next_command(self, folder: str) -> str:
        return f'pellucid predict {folder} "…"'

    def baselines(self, thorough: bool = False) -> Reference:
        """The commonest class; with ``thorough`` a linear model on the texts' words or pairs of characters."""
        train, held = self._parts["train"], self._parts[self._judging(thorough)]
        true_N, linear = held.classes.numpy(), None
        if thorough:
            name, said_N = linear_model(train.texts, train.classes.numpy(), held.texts)
            linear = Rival("linear_model", name, float((said_N != true_N).mean()))
        data = scores.judged_data(self._sizes)
        return scores.class_reference(_("nats a text"), len(self.classes), train.classes.numpy(), true_N, linear, data)

    # what a user of the trained model asks

    def read(self, source: str) -> list[str]:
        """The lines of a .txt, the column of texts of a table, each .txt of a folder; else the source is the text.

        Raises:
            PellucidError: when a file is missing, holds no text or cannot be read.
        """
        path = Path(source)
        if not _names_a_file(source):
            texts = [source]
        elif path.is_dir():
            texts = [_file_text(file) for file in sorted(path.glob("*.txt"))]
        elif path.suffix.lower() == ".txt":
            texts = _file_text(path).splitlines()
        else:
            texts = self._column(source)
        texts = [text.strip() for text in texts if text.strip()]
        if not texts:
            raise PellucidError(_("There is no text here."), source, _("Give a text, or a file with one text a line."))
        return texts

    def _column(self, source: str) -> list[str]:
        name = self._facts["column"]
        table = tables.arrow(source, [])
        if name not in table.column_names:
            raise PellucidError(
                _("There is no column {column}.").format(column=name),
                source,
                _("The model reads its texts from a column of this name; the columns are: {columns}.").format(
                    columns=tables.listed(table.column_names, 30)
                ),
            )
        return ["" if value is None else str(value) for value in table.column(name).to_pylist()]

    def predict(self, network: nn.Module, inputs: Sequence[str]) -> list[Prediction]:
        """Each text's class, with the probabilities of all."""
        self._needs_classes()
        p_NK = self._logits(network, self._ids(inputs)).softmax(1)
        return [
            Prediction(text, self.classes[int(p_K.argmax())], dict(zip(self.classes, p_K.tolist(), strict=True)))
            for text, p_K in zip(inputs, p_NK, strict=True)
        ]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [_cut(ids, self._facts["context"]) for ids in self.tokenizer.encode_all(texts)]

    def _needs_classes(self) -> None:
        if not self.classes:
            raise PellucidError(
                _("This is an encoder without classes: it makes vectors of texts, and tells nothing apart."),
                "",
                _("Ask how similar two texts are (Model.similarity), or train it: pellucid train TABLE --from FOLDER."),
            )

    def evaluate(self, network: nn.Module, source: str | None = None) -> scores.ClassReport:
        """On the run's own test texts, or on a table with the columns of the texts and of the classes."""
        self._needs_classes()
        if source is None:
            part = self._parts[self._judging(True)]
            ids, classes_N = part.ids, part.classes
        else:
            read = read_labelled(source, self._facts["target"], self._facts["column"], self.classes)
            ids, classes_N = self._ids(read.texts), torch.from_numpy(read.labels)
        logits_NK = self._logits(network, ids)
        loss = cross_entropy(logits_NK, classes_N).item() / len(classes_N)
        return scores.ClassReport.of(self.classes, classes_N.numpy(), logits_NK.argmax(1).numpy(), loss)

    @torch.no_grad()
    def embed(self, network: nn.Module, texts: Sequence[str]) -> Tensor:
        """A vector of length 1 for each text, (N, d_model): the mean of its tokens' last vectors (Reimers 2019)."""
        encoder: Encoder = network.encoder if isinstance(network, Classifier) else network  # type: ignore[assignment]
        encoder.eval()
        device = next(encoder.parameters()).device
        found = []
        for start in range(0, len(texts), AT_ONCE):
            ids_BT, mask_BT = (part.to(device) for part in self._padded(self._ids(texts[start : start + AT_ONCE])))
            found.append(F.normalize(mean_over_tokens(encoder(ids_BT, mask_BT), mask_BT)).cpu())
        return torch.cat(found)

    def trace(self, network: nn.Module, inputs: Sequence[str]) -> Trace:
        """The first text, without padding, run and recorded."""
        from pellucid.tracing.trace import trace

        device = next(network.parameters()).device
        return trace(network, torch.tensor(self._ids(inputs[:1]), device=device))

    def explain(
        self, network: nn.Module, inputs: Sequence[str], value: str | None, rather_than: str | None
    ) -> Explanation:
        """Why one class rather than another: the difference of their logits, by the words of the text."""
        from pellucid.tasks.explanation import Part as Share
        from pellucid.tasks.explanation import difference, explained, two_classes

        self._needs_classes()
        text, trace = inputs[0], self.trace(network, inputs)
        a, b = two_classes(self.classes, trace[":out"][0].tolist(), value, rather_than)
        asked = _("{a} rather than {b}").format(a=self.classes[a], b=self.classes[b])
        question = difference(trace, asked, f":out[0,{a}]", f":out[0,{b}]")
        amounts = trace.flow(question, exact=True).tokens
        assert amounts is not None, "every text has tokens"
        amounts_T = amounts.flatten().tolist()
        words = _words(text, self.tokenizer, len(amounts_T))
        cut = len(self.tokenizer.encode(text)) > len(amounts_T)
        notes = (_("Only the first {n} tokens of the text are read.").format(n=len(amounts_T)),) if cut else ()
        shares = [Share(name, None, sum(amounts_T[n] for n in tokens)) for name, tokens in words]
        return explained(asked, trace, question, shares, notes=notes)


def linear_model(texts: list[str], classes_N: np.ndarray, unseen: list[str]) -> tuple[str, np.ndarray]:
    """What a logistic regression on TF-IDF says of unseen texts: its name, and the index of a class for each.

    Counted are words and pairs of words, or pairs of characters where the script puts no spaces between words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if _unspaced(texts):
        name, settings = _("a linear model on pairs of characters"), {"analyzer": "char", "ngram_range": (2, 2)}
    else:
        name, settings = _("a linear model on words and pairs of words"), {"ngram_range": (1, 2)}
    vectors = TfidfVectorizer(sublinear_tf=True, **settings)
    try:
        known, other = vectors.fit_transform(texts), vectors.transform(unseen)
    except ValueError:  # no words at all
        return name, np.full(len(unseen), np.bincount(classes_N).argmax())
    return name, LogisticRegression(max_iter=1000).fit(known, classes_N).predict(other)


def _unspaced(texts: Sequence[str]) -> bool:
    some = "".join(text[:200] for text in texts[:500])
    return len(UNSPACED.findall(some)) > 0.2 * len(some)


def _rows(read: Labelled, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    return [read.texts[row] for row in rows], read.labels[rows]


def _tokenizer(texts: list[str], options: TrainOptions) -> tuple[FramedTokenizer, str]:
    """The tokenizer to use, and why."""
    if options.start_from or (options.tokenizer and options.tokenizer != "bytes"):
        folder = options.start_from or options.tokenizer
        return FramedTokenizer.open(str(folder)), _("as in {folder}").format(folder=folder)
    if options.tokenizer:
        return FramedTokenizer.byte_level(), _("one token for each of the 256 bytes, and the frame")
    size = sum(len(text.encode()) for text in texts)
    wanted, why = options.vocab, _("as given")
    if not wanted:
        wanted = min(max(2 ** round(math.log2(max(1, size) / 300)), 512), 8192)
        why = _("a token for about every {n} bytes of text, between 512 and {most:,}").format(n=300, most=8192)
    tokenizer = FramedTokenizer.train(texts, wanted)
    if tokenizer.vocab_size < wanted:
        why = _("the text supports no more than {n} ({wanted} were wanted)").format(
            n=tokenizer.vocab_size, wanted=wanted
        )
    return tokenizer, why


def _context(ids: list[list[int]], options: TrainOptions) -> int:
    """How many tokens of a text are read, the frame included."""
    wanted = options.context or min(LONGEST, max(16, 8 * math.ceil(np.quantile([len(one) for one in ids], 0.9) / 8)))
    most = read_encoder_config(options.start_from).context if options.start_from else None
    if options.context and most and options.context > most:
        raise PellucidError(
            _("{folder} reads at most {most} tokens.").format(folder=options.start_from, most=most),
            "--context",
            _("Give at most {most}.").format(most=most),
        )
    if wanted < 3:
        raise PellucidError(
            _("A context of {n} tokens has no room for a text in its frame.").format(n=wanted),
            "--context",
            _("Give at least {n}.").format(n=3),
        )
    return min(wanted, most) if most else wanted


def _cut(ids: list[int], context: int) -> list[int]:
    """The beginning of a text that is too long, with the token that ends it."""
    return ids if len(ids) <= context else [*ids[: context - 1], ids[-1]]


@torch.no_grad()
def _scale_to_width(network: Classifier) -> None:
    """BERT's N(0, 0.02) suits its width of 768; narrower layers need larger weights to give as much (Glorot 2010).

    Without it the first hundred steps teach next to nothing.
    """
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1 and ("blocks" in name or name.startswith(("pooler", "head"))):
            parameter.mul_(math.sqrt(768 / network.config.d_model))


def _without_some(mask_BT: Tensor, share: float) -> Tensor:
    """The mask with this share of the tokens hidden, the first never."""
    kept_BT = torch.rand(mask_BT.shape) >= share
    kept_BT[:, 0] = True
    return mask_BT & kept_BT


def _settings(plan: Plan) -> EncoderConfig:
    known = {f.name for f in fields(EncoderConfig)}
    if not plan.network.keys() <= known:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {', '.join(sorted(plan.network.keys() - known))}",
            _("Give the plan.json of a run."),
        )
    return EncoderConfig(**plan.network)


def _names_a_file(source: str) -> bool:
    """Whether a source is a file or folder, rather than a text.

    Raises:
        PellucidError: when it looks like a file, and there is none.
    """
    path = Path(source)
    try:
        if path.exists():
            return True
    except OSError:  # too long for a name
        return False
    if " " not in source and "\n" not in source and (path.suffix.lower() == ".txt" or tables.is_table(source)):
        raise PellucidError(_("There is no such file."), source, _("Check the path."))
    return False


def _file_text(path: Path) -> str:
    from pellucid.data.text import file_text

    return file_text(path, [])


def _words(text: str, tokenizer: FramedTokenizer, length: int) -> list[tuple[str, list[int]]]:
    """The words that the first tokens spell, each with its tokens; by token where a script has no spaces.

    What stands between two words belongs to the second. The frame's tokens are words of their own.
    """
    spans, numbers = tokenizer.spans(text), tokenizer.words(text)
    if len(spans) > length:
        spans, numbers = [*spans[: length - 1], spans[-1]], [*numbers[: length - 1], numbers[-1]]
    words: list[tuple[str, list[int]]] = []
    begin = end = 0
    last: int | None = None
    for token, ((start, stop), number) in enumerate(zip(spans, numbers, strict=True)):
        if number is None:
            words.append((tokenizer.show(tokenizer.encode(text)[0 if token == 0 else -1]), [token]))
            continue
        goes_on = number == last and not UNSPACED.search(text[begin:stop])
        if words and (goes_on or start < end):  # a piece of a word, or of a character
            words[-1] = text[begin:stop], [*words[-1][1], token]
        else:
            begin = end
            words.append((text[begin:stop], [token]))
        end, last = stop, number
    return words
