"""Pairs of texts: learn to write one from the other, and so to translate."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.memory import peak
from pellucid.anatomy.memory.kept import Run, passes
from pellucid.checkpoints.files import read_json
from pellucid.checkpoints.translator import open_translator, save_translator
from pellucid.data import pairs as data
from pellucid.data import splits, tables
from pellucid.data.compress import unigram_nats
from pellucid.data.pair_tokens import MASKED, ROUND, PairBatch, PairBatches, PairTokens, padded
from pellucid.data.text import file_text
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.translate import translate
from pellucid.language import _
from pellucid.networks.losses import cross_entropy
from pellucid.networks.translator import Translator, TranslatorConfig
from pellucid.tasks import translation_scores as scores
from pellucid.tasks import word_by_word
from pellucid.tasks.alignment import Alignment, Word, words
from pellucid.tasks.explanation import Explanation, Part, difference, explained
from pellucid.tasks.scores import judged_data, judging
from pellucid.tasks.task import Design, Prediction, Recipe, Reference, Rival
from pellucid.tasks.translation_scores import Rendering, TranslationReport

if TYPE_CHECKING:
    from pellucid.tracing.trace import Trace
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

PARTS = ("train", "validation", "test")
HELD_OUT = 1000  # pairs that are enough to validate on, and as many to test on
SMOOTHING = 0.1  # of the training targets (Vaswani et al. 2017, §5.4)
LONGEST = 512  # tokens on either side, where the user says nothing
BEAMS = 4  # hypotheses of the beam search (Vaswani et al. 2017, §6.1)
JUDGED = 500  # test pairs that are translated at the end of a training
AT_ONCE = 32  # texts translated together
PREPARED = 400_000_000  # bytes that matrix products in bf16 on a CPU keep for the shapes of a pass: measured
FAMILY = "gpt2"  # whose pattern cuts the texts into words, before they become tokens
# width of the vectors, layers of encoder and of decoder; heads have 64 numbers, or are four
LADDER = ((128, 2), (192, 2), (256, 2), (256, 3), (320, 3), (384, 3), (384, 4), (512, 4), (512, 6), (768, 6), (1024, 6))


class PairsTask:
    """Texts and what they become, in three parts, as tokens of one vocabulary."""

    name: ClassVar[str] = "pairs"
    options: ClassVar[frozenset[str]] = frozenset(
        {"target", "text", "validation", "test", "tokenizer", "vocab", "width", "depth", "heads", "feed_forward"}
        | {"context", "embedding_rate"}
    )

    def __init__(self, tokenizer: Tokenizer, own: dict[str, Any], parts: dict[str, PairTokens]) -> None:
        """``own``: the columns' names, where there are any, and how sacrebleu should count."""
        self.tokenizer, self._facts, self._parts = tokenizer, own, parts
        self.unit, self.items = _("tokens"), len(parts["train"].target_ids) if parts else 0
        self.judged_on = _("the test pairs") if parts and len(parts["test"]) else _("the pairs it was trained on")

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        if source is None or not options.target:
            return None
        if tables.is_table(source):
            kind, why = tables.kind_of_target(tables.read(source), options.target)
            return _("pairs of texts: {why}").format(why=why) if kind == "text" else None
        if os.path.isfile(source) and os.path.isfile(options.target):
            return _("pairs of texts: line by line of two files")
        return None

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> PairsTask:
        """Read pairs, hold some out, train the tokenizer on the others, write tokens and tokenizer into ``folder``.

        Raises:
            PellucidError: when the source holds no pairs, or none that is short enough.
        """
        if source is None or not options.target:
            raise PellucidError(
                _("What are the texts to become?"),
                source or "SOURCE",
                _("Name the column, or the file: --target NAME."),
            )
        found = _read(source, options.target, options.text)
        given = {"validation": options.validation, "test": options.test}
        share = min(0.15, HELD_OUT / len(found.sources))
        validation, test = (0.0 if path else share for path in given.values())
        split = splits.split(
            len(found.sources), None, found.groups, (1 - validation - test, validation, test), options.seed
        )
        texts = {
            part: [(found.sources[row], found.targets[row]) for row in getattr(split, part).tolist()] for part in PARTS
        }
        notes = [*found.notes, *split.notes]
        for part, path in given.items():
            if path:
                texts[part], note = _others(_read(path, options.target, options.text), texts["train"], path)
                notes += note
        tokenizer, why = _tokenizer([text for pair in texts["train"] for text in pair], options)
        encoded = {
            part: PairTokens.encode([s for s, _t in pairs], [t for _s, t in pairs], tokenizer)
            for part, pairs in texts.items()
        }
        wanted = options.context and -(-options.context // ROUND) * ROUND
        context, parts = _fitting(encoded, wanted, notes)
        for part, pairs in parts.items():
            pairs.save(folder / "data" / f"{part}.npz")
        tokenizer.save(folder, FAMILY)
        train = parts["train"]
        facts = {
            "column": options.text,
            "target": None if os.path.isfile(options.target) else options.target,
            "pairs": {part: len(pairs) for part, pairs in parts.items()},
            "train_items": len(train.target_ids),
            "held_out_items": len(parts["validation"].target_ids) or len(train.target_ids),
            "length": max(1, round(len(train.target_ids) / len(train))),
            "source_length": max(1, round(len(train.source_ids) / len(train))),
            "context": context,
            "held_out": split.how,
            "vocabulary": tokenizer.vocab_size,
            "vocabulary_why": why,
            "bleu": scores.tokenizer_for([t for _s, t in texts["train"]]),
            "notes": notes,
        }
        return PairsTask(tokenizer, facts, parts)

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> PairsTask:
        tokenizer = Tokenizer.open(folder)
        own = facts or read_json(folder / "config.json").get("pellucid") or {}
        files = {part: folder / "data" / f"{part}.npz" for part in PARTS}
        if facts is None and not all(file.exists() for file in files.values()):
            return PairsTask(tokenizer, own, {})
        assert tokenizer.end_id is not None, "a tokenizer without could not have made the data"
        return PairsTask(tokenizer, own, {p: PairTokens.open(file, tokenizer.end_id) for p, file in files.items()})

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder, FAMILY)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        facts = self._facts
        said = _("A text has {source} tokens on average, what it becomes {target}.")
        return [facts["held_out"], said.format(source=facts["source_length"], target=facts["length"])]

    # what the plan asks

    def designs(self, options: TrainOptions) -> list[Design]:
        """Translators of several widths and depths, small to large, or the one that the options fix."""
        shapes = {(options.width or width, options.depth or depth) for width, depth in LADDER}
        found = [self._design(width, depth, options) for width, depth in sorted(shapes)]
        return sorted(found, key=lambda design: design.parameters)

    def _design(self, width: int, depth: int, options: TrainOptions) -> Design:
        heads = options.heads or next(h for h in range(max(4, round(width / 64)), 0, -1) if width % h == 0)
        if width % heads:
            raise PellucidError(
                _("Width {width} cannot be shared by {heads} heads.").format(width=width, heads=heads),
                "--width, --heads",
                _("The width must be a multiple of the heads."),
            )
        end = self.tokenizer.end_id
        assert end is not None, "a tokenizer without could not have made the data"
        config = TranslatorConfig(
            vocab_size=self.tokenizer.vocab_size,
            d_model=width,
            encoder_layers=depth,
            decoder_layers=depth,
            n_heads=heads,
            d_ff=options.feed_forward or 4 * width,
            context=self._facts["context"],
            pad_id=end,  # as the tokenizer's files say; Marian, too, begins with what it pads with
            start_id=end,
            end_id=end,
        )
        tree, length = families.translator(config), self._facts["length"]
        return Design(
            asdict(config), counts.parameters(tree).total, float(compute.training_flops(tree, length).total), length
        )

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        given = _("as given")
        return {
            "vocabulary": self._facts["vocabulary_why"],
            "heads": given if options.heads else _("of 64 numbers each, as in the paper; four at least"),
            "context": given
            if options.context
            else _("holds the longest pair, {most} tokens at most").format(most=LONGEST),
        }

    def recipe(self, design: Design) -> Recipe:
        scale = min(1.0, (256 / design.network["d_model"]) ** 0.5)
        return Recipe(
            "muon",
            1e-2 * scale,
            3e-3 * scale,
            warmup=0.05,
            passes=60,
            why={
                "optimiser": _("a lower loss than AdamW in as many steps"),
                "learning_rate": _("found at a width of 256, falling as 1/√width above it"),
                "passes": _("{passes} passes over the pairs: more would be learned by heart"),
                "few": _("the fewest from which a network learns anything: there are very few pairs"),
            },
        )

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        dropout = 0.0 if passes <= 3 else 0.1 if passes <= 12 else 0.2 if passes <= 30 else 0.3
        return dropout, 0.1, _("the pairs are passed over {passes:.1f} times").format(passes=passes)

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        return {**network, "dropout": dropout}

    def memory(self, plan: Plan) -> int:
        """What the leaves keep for the backward pass, four times the logits, weights, optimiser, and `PREPARED`."""
        config = _config(plan)
        e, tokens = 2 if plan.precision == "bf16" else 4, max(plan.batch * plan.items, config.context)
        through = passes(families.translator(config), Run(math.ceil(tokens / plan.items), plan.items, e=e))
        kept = sum(one.visit.times * one.kept for one in through)
        ids = sum(part.source_ids.nbytes + part.target_ids.nbytes for part in self._parts.values())
        longer = max(1.0, self._facts["source_length"] / self._facts["length"])
        logits = 4 * tokens * config.vocab_size * 4
        prepared = PREPARED if e == 2 and plan.device == "cpu" else 0
        return int(peak.PROCESS + prepared + 20 * plan.parameters + ids + (1 + peak.HELD) * (longer * kept + logits))

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        network, why = plan.network, plan.reasons
        shape = _("layers: {encoder} to read, {decoder} to write, width: {width}").format(
            encoder=network["encoder_layers"], decoder=network["decoder_layers"], width=network["d_model"]
        )
        return [
            (_("network"), shape, why.get("network", "")),
            (_("vocabulary"), f"{network['vocab_size']:,}", why.get("vocabulary", "")),
            (_("heads"), str(network["n_heads"]), why.get("heads", "")),
            (_("context"), _("{n} tokens").format(n=network["context"]), why.get("context", "")),
            (_("dropout"), f"{network['dropout']:g}", why.get("dropout", "")),
        ]

    # what the loop asks

    def network(self, plan: Plan) -> Translator:
        return Translator(_config(plan), seed=plan.seed)

    def save_network(self, network: Any, folder: Path) -> None:
        own = {name: self._facts.get(name) for name in ("column", "target", "bleu")}
        save_translator(network, folder, {"task": self.name, **own})

    def open_network(self, folder: Path) -> nn.Module:
        return open_translator(folder)

    def batches(self, split: str, plan: Plan) -> PairBatches:
        """Pairs of similar length; a batch has as many tokens as so many pairs of mean length."""
        config = _config(plan)
        return PairBatches(self._parts[split], plan.batch * plan.items, plan.seed, config.start_id, config.pad_id)

    def loss(self, network: Any, batch: PairBatch) -> tuple[Tensor, int]:
        """Cross-entropy in nats, summed over the target tokens, ends included; smoothed while training."""
        device = next(network.parameters()).device
        source_BS, mask_BS, target_BT, wanted_BT = (part.to(device) for part in batch)
        logits_BTV = network(source_BS, target_BT, mask_BS)
        smoothing = SMOOTHING if network.training else 0.0
        return cross_entropy(logits_BTV, wanted_BT, smoothing=smoothing), int((wanted_BT != MASKED).sum())

    def metrics(self, network: Any, plan: Plan, whole: bool = False) -> dict[str, float]:
        """Nats a token on validation pairs; ``whole``: 100 - BLEU on test pairs first."""
        part = self._judging(whole)
        if not whole:
            wanted = max(1, min(len(part), plan.evaluate_items // plan.items))
            return {"loss": self._mean_loss(network, part, _spread(len(part), wanted), plan.batch * plan.items)}
        loss = self._mean_loss(network, part, np.arange(len(part)), plan.batch * plan.items)
        sources, references = self._texts(part, _spread(len(part), JUDGED))
        bleu = scores.score(self._translated(network, sources), references, self._facts["bleu"]).bleu
        return {"missed_bleu": 100 - bleu, "loss": loss}

    def _judging(self, whole: bool) -> PairTokens:
        return self._parts[judging(self._sizes, whole)]

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: len(part) for name, part in self._parts.items()}

    @torch.no_grad()
    def _mean_loss(self, network: Any, part: PairTokens, rows: np.ndarray, tokens: int) -> float:
        """Nats a target token, not smoothed."""
        network.eval()
        config, nats, count = network.config, 0.0, 0
        for some in part.in_batches(rows, tokens):
            loss, targets = self.loss(network, part.batch(some, config.start_id, config.pad_id))
            nats, count = nats + loss.item(), count + targets
        return nats / max(1, count)

    def _texts(self, part: PairTokens, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Sources and targets as the tokenizer spells them, which for a byte-level one is as they were."""
        decode = self.tokenizer.decode
        return [decode(part.source(row)) for row in rows], [decode(part.target(row)) for row in rows]

    def say(self, metrics: dict[str, float]) -> str:
        said = [_("{loss:.3f} nats a token").format(loss=metrics["loss"])]
        if "missed_bleu" in metrics:
            said.insert(0, _bleu(metrics["missed_bleu"]))
        return _(", ").join(said)

    def next_command(self, folder: str) -> str:
        return f'pellucid predict {folder} "..."'

    # what the verdict asks

    def baselines(self, thorough: bool = False) -> Reference:
        """Guessing evenly and by frequency; ``thorough``: BLEU of copying and of a dictionary learned from the data."""
        part, vocab_size = self._judging(thorough), self.tokenizer.vocab_size
        rivals: tuple[Rival, ...] = ()
        notes: tuple[str, ...] = ()
        if thorough:
            sources, references = self._texts(part, _spread(len(part), JUDGED))
            rivals = tuple(
                Rival(f"missed_bleu_{key}", name, 100 - scores.score(said, references, self._facts["bleu"]).bleu)
                for key, name, said in self._simple(sources)
            )
            if len(part) > JUDGED:
                notes = (
                    _("BLEU is measured on {n} of the {all:,} pairs, at even distances.").format(
                        n=JUDGED, all=len(part)
                    ),
                )
        return Reference(
            unit=_("nats a token"),
            simple=unigram_nats(self._parts["train"].target_ids, part.target_ids, vocab_size),
            simple_said=_("how often each token occurs"),
            figure="missed_bleu" if thorough else "loss",
            show=_bleu if thorough else lambda loss: _("{loss:.3f} nats a token").format(loss=loss),
            rivals=rivals,
            even=float(np.log(vocab_size)),
            even_said=f"ln({vocab_size:,})",
            even_among=_("{n:,} tokens").format(n=vocab_size),
            figure_per_loss=None if thorough else 1.0,
            notes=(*notes, _("The training loss is that of smoothed targets: it is higher than without smoothing.")),
            data=judged_data(self._sizes),
        )

    def _simple(self, sources: list[str]) -> list[tuple[str, str, list[str]]]:
        """What needs no network, by key and name: the sources as they are, and, with training data, word by word."""
        found = [("copy", _("the source as it is"), sources)]
        if self._parts:
            found.append(("words", _("word by word"), [self._dictionary.translate(text) for text in sources]))
        return found

    @cached_property
    def _dictionary(self) -> word_by_word.Dictionary:
        train = self._parts["train"]
        return word_by_word.learn(*self._texts(train, np.arange(len(train))))

    # what a user of the trained model asks

    def read(self, source: str) -> list[str]:
        """The texts in a table or a text file, one a line; or those that the source is itself, one a line."""
        if os.path.exists(source) and tables.is_table(source):
            return _column_of(source, self._facts.get("column"), self._facts.get("target"))
        if os.path.isfile(source):
            return file_text(Path(source), []).removesuffix("\n").split("\n")
        return source.strip().split("\n")

    def predict(self, network: Any, inputs: Sequence[str]) -> list[Prediction]:
        """What each text becomes, by beam search; of an empty one nothing."""
        return [Prediction(text, said) for text, said in zip(inputs, self._translated(network, inputs), strict=True)]

    def _translated(self, network: Any, texts: Sequence[str], beams: int = BEAMS) -> list[str]:
        """Translations of all texts, those of similar length together."""
        network.eval()
        encoded = [self._encoded(network, text, n) for n, text in enumerate(texts)]
        said = [""] * len(texts)
        order = sorted((n for n in range(len(texts)) if texts[n].strip()), key=lambda n: len(encoded[n]))
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            source_BS, mask_BS = self._given(network, [encoded[n] for n in rows])
            for n, found in zip(rows, translate(network, source_BS, mask_BS, beams=beams), strict=True):
                said[n] = self.tokenizer.decode(found.ids)
        return said

    def _encoded(self, network: Any, text: str, number: int = 0) -> np.ndarray:
        """Ids and the end token."""
        config = network.config
        ids = [*self.tokenizer.encode(text.strip()), config.end_id]
        if len(ids) > config.context:
            raise PellucidError(
                _("This text is too long: {n} tokens; the network reads {most}.").format(
                    n=len(ids), most=config.context
                ),
                _("text {number}: {text}").format(number=number + 1, text=text[:60]),
                _("Give it sentence by sentence, or train with a larger --context."),
            )
        return np.array(ids, np.int64)

    def _given(self, network: Any, encoded: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Sources and their mask on the network's device."""
        source_BS = padded(encoded, network.config.pad_id, multiple=1)
        mask_BS = torch.arange(source_BS.shape[1]) < torch.tensor([len(ids) for ids in encoded])[:, None]
        device = next(network.parameters()).device
        return source_BS.to(device), mask_BS.to(device)

    def evaluate(self, network: Any, source: str | None = None) -> TranslationReport:
        """BLEU, chrF and loss on all of the run's own test pairs, or on pairs of the same columns."""
        notes: list[str] = []
        if source is None:
            part = self._judging(True)
            sources, references = self._texts(part, np.arange(len(part)))
        else:
            found = _read(source, self._facts.get("target"), self._facts.get("column"))
            notes += found.notes
            read = {"test": PairTokens.encode(found.sources, found.targets, self.tokenizer)}
            _context, parts = _fitting(read, network.config.context // ROUND * ROUND, notes)
            part = parts["test"]
            sources, references = self._texts(part, np.arange(len(part)))
        said = self._translated(network, sources)
        tokenize = self._facts.get("bleu") or scores.tokenizer_for(references)
        examples = _spread(len(sources), scores.SHOWN)
        return TranslationReport(
            len(sources),
            scores.score(said, references, tokenize),
            self._mean_loss(network, part, np.arange(len(part)), 2048),
            {name: scores.score(simple, references, tokenize) for _key, name, simple in self._simple(sources)},
            _("beam search, {n} beams").format(n=BEAMS),
            scores.signature(tokenize),
            tuple(Rendering(sources[n], said[n], references[n]) for n in examples),
            tuple(notes),
        )

    def trace(self, network: Any, inputs: Sequence[str]) -> Trace:
        """The first text and what it becomes, recorded as one pass: the logits of each token that is written."""
        return self._recorded(network, inputs[0])[0]

    def _recorded(self, network: Any, text: str) -> tuple[Trace, np.ndarray, list[int]]:
        """The trace, the ids of the source with its end, and those of the translation with its end."""
        from pellucid.tracing.trace import trace

        if not text.strip():
            raise PellucidError(_("There is no text to translate."), "", _("Give one."))
        source_S = self._encoded(network, text)
        source_1S = torch.from_numpy(source_S)[None].to(next(network.parameters()).device)
        (found,) = translate(network, source_1S, beams=BEAMS)
        target_1T = source_1S.new_tensor([[network.config.start_id, *found.ids]])[:, : network.config.context]
        written = [*found.ids, network.config.end_id][: target_1T.shape[1]]
        return trace(network, source_1S, target_1T), source_S, written

    def explain(self, network: Any, inputs: Sequence[str], value: str | None, rather_than: str | None) -> Explanation:
        """Why a word of the translation was written rather than another: by the words read and those written before.

        Args:
            network: The translator.
            inputs: Of which the first is explained.
            value: A word of the translation; "word#2": where it stands for the second time. None: the least sure one.
            rather_than: Another word; None: the runner-up.

        Raises:
            PellucidError: when the translation has no such word, or both begin with the same token.
        """
        trace, source_S, written = self._recorded(network, inputs[0])
        read, said = self._words(source_S.tolist()), self._words(written)
        logits_TV = trace[":out"][0]
        at, notes = self._place(said, logits_TV, written, value)
        first = said[at].tokens[0]
        chosen = written[first]
        other = self._other(chosen, logits_TV[first], rather_than)
        asked = _("{a} rather than {b}").format(a=self._shown(chosen), b=self._shown(other))
        question = difference(trace, asked, f":out[0,{first},{chosen}]", f":out[0,{first},{other}]")
        flow = trace.flow(question, exact=True)
        amounts_S, amounts_T = flow.tokens, flow.inputs["decoder"]
        assert amounts_S is not None, "every source has tokens"
        before = [
            Word(_("(start)"), (0,)),
            *words(self.tokenizer, written[:first], start=1),
        ]
        parts = [
            Part(word.text, side, float(amounts.flatten()[list(word.tokens)].sum()))
            for side, amounts, its in ((_("in the text"), amounts_S, read), (_("written before"), amounts_T, before))
            for word in its
        ]
        return explained(asked, trace, question, parts, notes=notes, beside=(self._alignment(trace, read, said),))

    def alignment(self, network: Any, text: str) -> Alignment:
        """Which word of the text each word of its translation looks at."""
        trace, source_S, written = self._recorded(network, text)
        return self._alignment(trace, self._words(source_S.tolist()), self._words(written))

    def _words(self, ids: list[int]) -> list[Word]:
        """The words of a text, and its end where it has one."""
        if ids[-1] != self.tokenizer.end_id:
            return words(self.tokenizer, ids)
        return [*words(self.tokenizer, ids[:-1]), Word(_("(end)"), (len(ids) - 1,))]

    def _alignment(self, trace: Trace, read: list[Word], said: list[Word]) -> Alignment:
        maps = [found.weights[0] for found in trace.attention_maps("decoder") if found.path.endswith("cross_attention")]
        weights_TS = torch.stack(maps).mean((0, 1))
        return Alignment.of(weights_TS, read, said, _("What each word looks at: the mean of all heads"))

    def _place(
        self, said: list[Word], logits_TV: Tensor, written: list[int], value: str | None
    ) -> tuple[int, tuple[str, ...]]:
        """Which word of the translation is asked about, and what is to be said of that."""
        text = self.tokenizer.decode(written)
        notes = (_("The translation: {text}").format(text=text),)
        if value is None:
            best = logits_TV.topk(2).values
            margins = [float(best[word.tokens[0], 0] - best[word.tokens[0], 1]) for word in said]
            at = min(range(len(said)), key=margins.__getitem__)
            return at, (*notes, _("No word was named: this is where it was least sure."))
        name, _hash, number = value.strip().partition("#")
        places = [n for n, word in enumerate(said) if word.text == name]
        wanted = int(number) if number.isdecimal() else 1
        if not 1 <= wanted <= len(places):
            raise PellucidError(
                _("There is no such word in the translation: {word}.").format(word=value),
                "",
                _("It is: {text}").format(text=text),
            )
        return places[wanted - 1], notes

    def _other(self, chosen: int, logits_V: Tensor, rather_than: str | None) -> int:
        """The token that the chosen one is compared with."""
        if rather_than is None:
            first, second = logits_V.topk(2).indices.tolist()
            return second if first == chosen else first
        space = " " if self.tokenizer.token_bytes(chosen).startswith(b" ") else ""
        ids = self.tokenizer.encode(space + rather_than.strip())
        if not ids or ids[0] == chosen:
            raise PellucidError(
                _("Both words begin with the same token: there is no difference to explain."),
                "--rather-than",
                _("Name another word."),
            )
        return ids[0]

    def _shown(self, id: int) -> str:
        return self.tokenizer.token_bytes(id).decode("utf-8", "replace").strip() or self.tokenizer.show(id)


def _read(source: str, target: str | None, column: str | None) -> data.Pairs:
    """Pairs from two columns of a table, or the lines of two files."""
    if target is None:
        raise PellucidError(
            _("This network was trained on two files."),
            source,
            _("Evaluate it on its own test pairs: leave SOURCE out."),
        )
    if tables.is_table(source):
        return data.read(source, target, column)
    return data.read_lines(source, target)


def _others(found: data.Pairs, train: list[tuple[str, str]], path: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Pairs of which neither side stands in the training part, and what is to be said of those that do."""
    sides = [{" ".join(pair[side].split()) for pair in train} for side in (0, 1)]
    pairs = list(zip(found.sources, found.targets, strict=True))
    kept = [pair for pair in pairs if not any(" ".join(pair[side].split()) in sides[side] for side in (0, 1))]
    if len(kept) == len(pairs):
        return kept, found.notes
    said = _("{n:,} pairs of {file} also stand in the training part, on one side or both, and were left out.")
    return kept, [*found.notes, said.format(n=len(pairs) - len(kept), file=path)]


def _fitting(parts: dict[str, PairTokens], context: int | None, notes: list[str]) -> tuple[int, dict[str, PairTokens]]:
    """The context, and the pairs that fit into it; how many do not is said.

    Raises:
        PellucidError: when none does.
    """
    longest = {
        part: np.maximum(pairs.source_lengths, pairs.target_lengths) if len(pairs) else np.zeros(0, np.int64)
        for part, pairs in parts.items()
    }
    first = next(iter(parts))
    context = context or min(LONGEST, max(64, 1 << int(longest[first].max() - 1).bit_length()))
    if not (longest[first] <= context).any():
        raise PellucidError(
            _("No pair fits into {context} tokens a side: the shortest has {n}.").format(
                context=context, n=longest[first].min()
            ),
            "--context",
            _("Give a larger --context, or shorter texts."),
        )
    kept = {part: pairs.select(np.flatnonzero(longest[part] <= context)) for part, pairs in parts.items()}
    left_out = sum(len(parts[part]) - len(kept[part]) for part in parts)
    if left_out:
        notes.append(
            _("{n:,} of {all:,} pairs were left out: a side has more than {context} tokens.").format(
                n=left_out, all=sum(map(len, parts.values())), context=context
            )
        )
    return context, kept


def _tokenizer(texts: list[str], options: TrainOptions) -> tuple[Tokenizer, str]:
    """The tokenizer for both sides, and why."""
    if options.tokenizer == "bytes":
        return Tokenizer.byte_level(FAMILY), _("one token for each of the 256 bytes, and the end")
    if options.tokenizer:
        return Tokenizer.open(Path(options.tokenizer)), _("as in {folder}").format(folder=options.tokenizer)
    wanted, why = options.vocab, _("as given")
    if not wanted:
        most = 4096 if (options.minutes or 5) <= 10 else 8192
        size = sum(len(text.encode()) for text in texts)
        wanted = min(max(1 << (size // 1000).bit_length(), 512), most)
        why = _("one for both sides, a token for about every 1,000 bytes, between 512 and {most}").format(most=most)
    tokenizer = Tokenizer.train(texts, wanted, FAMILY)
    if tokenizer.vocab_size < wanted:
        why = _("the texts support no more than {n} ({wanted} were wanted)").format(
            n=tokenizer.vocab_size, wanted=wanted
        )
    return tokenizer, why


def _config(plan: Plan) -> TranslatorConfig:
    try:
        return TranslatorConfig(**plan.network)
    except TypeError as error:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {error}",
            _("Give the plan.json of a run."),
        ) from error


def _spread(n: int, wanted: int) -> np.ndarray:
    """Rows at even distances."""
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(int))


def _bleu(missed: float) -> str:
    return _("BLEU {bleu:.1f}").format(bleu=100 - missed)


def _column_of(source: str, column: str | None, target: str | None) -> list[str]:
    """The texts of a table: in the column that was trained on, or the only one of text."""
    table = tables.read(source)
    if column is None:
        found = [c.name for c in table.columns if c.name != target and c.values.dtype == object]
        if len(found) != 1:
            raise PellucidError(
                _("Which column holds the texts?"),
                source,
                _("Give a text file, one text a line, or a table with one column of text."),
            )
        column = found[0]
    return [text or "" for text in tables.strings(table, column)]
