"""Text: learn to predict the next token, and so to write."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.memory import peak
from pellucid.checkpoints.decoder import open_decoder, read_decoder_config, save_decoder
from pellucid.data import text as texts
from pellucid.data.compress import MOST_TRAINING, Compression, bits_per_byte, compression, unigram_nats
from pellucid.data.tokenizer import SAMPLE, Tokenizer
from pellucid.data.tokens import Batches, TokenFile, evaluation_blocks
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.decoder import Decoder, DecoderConfig, decoder_config
from pellucid.networks.losses import cross_entropy_in_place
from pellucid.tasks.task import Design, Recipe, Reference, Rival

if TYPE_CHECKING:
    from pellucid.training.options import TrainOptions
    from pellucid.training.plan import Plan

# widths and depths to choose from, small to large; heads of 64, as GPT-2 and Llama's smallest have
LADDER = (
    *((128, 4), (192, 4), (256, 4), (320, 4), (384, 4), (384, 6), (512, 6), (512, 8), (640, 8), (640, 10), (768, 10)),
    *(
        (768, 12),
        (1024, 12),
        (1024, 16),
        (1024, 24),
        (1280, 24),
        (1536, 24),
        (1792, 28),
        (2048, 28),
        (2560, 32),
        (4096, 32),
    ),
)

ENDS_TO_LEARN = 20  # how often a network must have seen what a text begins after
REPEATED = 0.05  # share of held-out lines that also stand in training, above which a warning is due


class TextTask:
    """A text cut into tokens, in two parts: one to train on, one held out."""

    name: ClassVar[str] = "text"
    options: ClassVar[frozenset[str]] = frozenset(
        {"text", "validation", "tokenizer", "vocab", "family", "width", "depth", "heads", "kv_heads", "feed_forward"}
        | {"context", "embedding_rate", "start_from"}
    )

    def __init__(self, tokenizer: Tokenizer, train: TokenFile, validation: TokenFile, facts: dict[str, Any]) -> None:
        self.tokenizer, self.train, self.validation, self._facts = tokenizer, train, validation, facts
        self.items = len(train)
        self.unit, self.judged_on = _("tokens"), _("all held-out text")
        self._bytes = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)], dtype=np.int64)
        self._start = self._start_id()

    def _start_id(self) -> int | None:
        """What stands before a text that begins with nothing: the end of another document.

        Where training saw too few ends to learn what follows them, the commonest token that ends a line.
        """
        counts_V = np.bincount(self.train.ids, minlength=self.tokenizer.vocab_size)
        end = self.tokenizer.end_id
        if end is not None and counts_V[end] >= ENDS_TO_LEARN:
            return end
        lines = [
            i for i in range(self.tokenizer.vocab_size) if i != end and self.tokenizer.token_bytes(i).endswith(b"\n")
        ]
        best = max(lines, key=lambda i: counts_V[i], default=None)
        return best if best is not None and counts_V[best] >= ENDS_TO_LEARN else end

    @staticmethod
    def recognise(source: str | None, options: TrainOptions) -> str | None:
        """Whatever no other task claims is read as text."""
        return _("text: learn to predict the next token")

    @staticmethod
    def prepare(source: str | None, options: TrainOptions, folder: Path) -> TextTask:
        """Read ``source``, hold a part out, fit the tokenizer on the rest, write tokens and tokenizer into ``folder``.

        Raises:
            PellucidError: when the source cannot be read or holds too little text.
        """
        corpus = texts.read(source, options.text)
        held_out = texts.read(options.validation, options.text) if options.validation else None
        split = texts.split(corpus, seed=options.seed, validation=held_out)
        train_bytes = sum(len(text.encode()) for text in split.train)
        tokenizer, why = _tokenizer(split.train, train_bytes, options)
        notes = [*corpus.notes, *split.notes]
        missing = set().union(*(tokenizer.unspellable(text) for text in split.train))
        if missing:
            notes.append(
                _(
                    "The tokenizer cannot spell {n} of the text's characters, such as {some}; "
                    "leave --tokenizer out, and one is trained that can."
                ).format(n=len(missing), some=" ".join(sorted(missing)[:5]))
            )
        parts = {"train": split.train, "validation": split.validation}
        files = {
            name: TokenFile.build(folder / "data" / f"{name}.bin", documents, tokenizer, name)
            for name, documents in parts.items()
        }
        facts = {
            "documents": len(split.train) + len(split.validation),
            "train_bytes": train_bytes,
            "train_items": len(files["train"]),
            "held_out_bytes": sum(len(text.encode()) for text in split.validation),
            "held_out_items": len(files["validation"]),
            "held_out": split.how,
            "repeated": split.repeated,
            "family": options.family or "qwen3",
            "vocabulary": tokenizer.vocab_size,
            "vocabulary_why": why,
            "notes": notes,
        }
        tokenizer.save(folder, options.family or "qwen3")
        return TextTask(tokenizer, files["train"], files["validation"], facts)

    @staticmethod
    def restore(folder: Path, facts: dict[str, Any] | None = None) -> TextTask:
        """The task of a run, from what `prepare` wrote."""
        assert facts is not None, "a language model is opened without its task: see `LanguageModel.open`"
        files = {name: TokenFile.open(folder / "data" / f"{name}.bin") for name in ("train", "validation")}
        return TextTask(Tokenizer.open(folder), files["train"], files["validation"], facts)

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder, self._facts["family"])

    def facts(self) -> dict[str, Any]:
        return self._facts

    def summary(self) -> list[str]:
        facts = self._facts
        lines = [
            _("{train:,} bytes to train on, {held:,} held out.").format(
                train=facts["train_bytes"], held=facts["held_out_bytes"]
            ),
            facts["held_out"],
            _("{share:.1%} of the held-out lines also stand in the training part.").format(share=facts["repeated"]),
        ]
        if facts["repeated"] > REPEATED:
            lines.append(_("So many repeated lines make the held-out loss look better than it is for new text."))
        return lines

    # what the plan asks

    def designs(self, options: TrainOptions) -> list[Design]:
        """The networks that could be trained: a ladder of widths and depths, or the one that the options fix."""
        if options.start_from:
            config = read_decoder_config(options.start_from)
            longest = min(config.context, len(self.train) - 1)
            return [_design(config, min(options.context or min(1024, longest), longest))]
        shapes = {(options.width or width, options.depth or depth) for width, depth in LADDER}
        configs = [self._config(width, depth, options) for width, depth in sorted(shapes)]
        return sorted((_design(config, config.context) for config in configs), key=lambda design: design.parameters)

    def _config(self, width: int, depth: int, options: TrainOptions) -> DecoderConfig:
        heads = options.heads or next(h for h in range(max(1, round(width / 64)), 0, -1) if width % h == 0)
        kv_heads = options.kv_heads or heads
        if width % heads or heads % kv_heads or (width // heads) % 2:
            raise PellucidError(
                _("Width {width} cannot be shared by {heads} heads and {kv_heads} key-value heads.").format(
                    width=width, heads=heads, kv_heads=kv_heads
                ),
                "--width, --heads, --kv-heads",
                _("The width must be an even multiple of the heads, and the heads a multiple of the key-value heads."),
            )
        weights = 12 * width * width * depth + self.tokenizer.vocab_size * width
        wanted = (
            1024
            if weights > 1e8
            else 512
            if weights > 3e7
            else 256
            if weights > 5e6 or self._facts["train_bytes"] < 1e6
            else 128
        )
        context = options.context or max(2, min(wanted, len(self.train) - 1))
        if context >= len(self.train):
            raise PellucidError(
                _("A context of {context} tokens is longer than the text of {n}.").format(
                    context=context, n=len(self.train)
                ),
                "--context",
                _("Give at most {most}, or more text.").format(most=len(self.train) - 1),
            )
        shape = {"vocab_size": self.tokenizer.vocab_size, "d_model": width, "n_layers": depth, "n_heads": heads}
        shape |= {"n_kv_heads": kv_heads, "context": context}
        if options.feed_forward:
            shape["d_ff"] = options.feed_forward
        return decoder_config(options.family or "qwen3", **shape)

    def why(self, design: Design, options: TrainOptions) -> dict[str, str]:
        given, network = _("as given"), design.network
        reasons = {
            "vocabulary": self._facts["vocabulary_why"],
            "family": given
            if options.family
            else _("rotary positions and gated layers learn fastest; Llama's ecosystem opens the files"),
            "heads": given
            if options.heads
            else _("of {size} numbers each, as in GPT-2 and Llama").format(size=network["head_dim"]),
            "context": given
            if options.context
            else _("short contexts train faster; it grows with the network (128 to 1,024)"),
        }
        if not options.context and network["context"] == len(self.train) - 1:
            reasons["context"] = _("the whole text: it has no more tokens")
        if options.start_from:
            reasons |= dict.fromkeys(
                ("vocabulary", "family", "heads"), _("as in {folder}").format(folder=options.start_from)
            )
        return reasons

    def recipe(self, design: Design) -> Recipe:
        """Muon on the blocks' matrices: lower bits per byte than AdamW in equal time (docs/performance.md)."""
        scale = min(1.0, math.sqrt(256 / design.network["d_model"]))
        return Recipe(
            "muon",
            1e-2 * scale,
            5e-3 * scale,
            why={
                "optimiser": _("lower bits per byte than AdamW in equal time (docs/performance.md)"),
                "learning_rate": _("found at a width of 256, falling as 1/√width above it"),
                "passes": _("{passes} passes over the text: more would teach nothing new (Muennighoff et al. 2023)"),
                "few": _("the fewest from which a network learns anything: the text is very short"),
            },
        )

    def regularisation(self, passes: float) -> tuple[float, float, str]:
        dropout = 0.0 if passes <= 1.5 else 0.1 if passes <= 4 else 0.25
        return (
            dropout,
            0.1 if passes <= 4 else 0.3,
            _("the text is passed over {passes:.1f} times").format(passes=passes),
        )

    def regularised(self, network: dict[str, Any], dropout: float) -> dict[str, Any]:
        return {**network, "dropout": dropout}

    def memory(self, plan: Plan) -> int:
        return peak.forecast(families.decoder(settings(plan)), peak.Training.of(plan)).total

    def rows(self, plan: Plan) -> list[tuple[str, str, str]]:
        network, why = plan.network, plan.reasons
        shape = _("layers: {depth}, width: {width}").format(depth=network["n_layers"], width=network["d_model"])
        dropped = _("; on the embedding and both additions of each block") if network["dropout"] else ""
        return [
            (_("network"), shape, why.get("network", "")),
            (_("family"), network["family"], why.get("family", "")),
            (_("vocabulary"), f"{network['vocab_size']:,}", why.get("vocabulary", "")),
            (_("heads"), str(network["n_heads"]), why.get("heads", "")),
            (_("context"), _("{n} tokens").format(n=network["context"]), why.get("context", "")),
            (_("dropout"), f"{network['dropout']:g}", why.get("dropout", "") + dropped),
        ]

    # what the loop asks

    def network(self, plan: Plan) -> Decoder:
        network = Decoder(settings(plan), seed=plan.seed)
        if plan.start_from:
            network.load_state_dict(open_decoder(plan.start_from).state_dict())
        return network

    def save_network(self, network: Any, folder: Path) -> None:
        end = self.tokenizer.end_id
        save_decoder(network, folder, {"task": self.name, "start_id": self._start}, tokens=(end, end))

    def open_network(self, folder: Path) -> nn.Module:
        return open_decoder(folder)

    def batches(self, split: str, plan: Plan) -> Batches:
        return Batches(self.train if split == "train" else self.validation, plan.items, plan.batch, plan.seed)

    def examples(self, batch: tuple[Tensor, Tensor]) -> list[dict[str, str]]:
        """The texts of a batch."""
        return [{"text": self.tokenizer.decode(ids_T)} for ids_T in batch[0].tolist()]

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy in nats, summed over the tokens to predict (targets below 0 are masked)."""
        ids_BT, targets_BT = batch
        count = int((targets_BT >= 0).sum())
        device = next(network.parameters()).device
        logits_BTV = network(ids_BT.to(device))
        return cross_entropy_in_place(logits_BTV.flatten(0, 1), targets_BT.to(device).flatten()), count

    @torch.no_grad()
    def metrics(self, network: nn.Module, plan: Plan, whole: bool = False) -> dict[str, float]:
        """Bits per byte and nats per token on held-out text: all of it, or as many evenly spread blocks as planned."""
        network.eval()
        blocks = list(evaluation_blocks(self.validation, plan.items, 1, before=self._start))
        wanted = len(blocks) if whole else max(1, min(len(blocks), plan.evaluate_items // plan.items))
        chosen = [blocks[i] for i in np.unique(np.linspace(0, len(blocks) - 1, wanted).round().astype(int))]
        nats, tokens, size = 0.0, 0, 0
        for start in range(0, len(chosen), plan.batch):
            ids, targets = (torch.cat(part) for part in zip(*chosen[start : start + plan.batch], strict=True))
            loss, count = self.loss(network, (ids, targets))
            nats, tokens = nats + loss.item(), tokens + count
            size += int(self._bytes[targets[targets >= 0].numpy()].sum())
        return {"bits_per_byte": bits_per_byte(nats, max(1, size)), "loss": nats / max(1, tokens)}

    def say(self, metrics: dict[str, float]) -> str:
        return _("{loss:.3f} nats a token = {bits:.3f} bits per byte").format(
            loss=metrics["loss"], bits=metrics["bits_per_byte"]
        )

    def next_command(self, folder: str) -> str:
        return f'pellucid generate {folder} "..."'

    # what the verdict asks

    def baselines(self, thorough: bool = False) -> Reference:
        """Guessing evenly, guessing by frequency, gzip and xz of the held-out text.

        ``thorough``: xz is given the training part as well, which takes seconds.
        """
        held_out = np.asarray(self.validation.ids)
        training = self._text(self.train.ids[-MOST_TRAINING - 1 :]) if thorough else b""
        return text_reference(
            self.tokenizer.vocab_size,
            unigram_nats(self.train.ids, held_out, self.tokenizer.vocab_size),
            float(self._bytes[held_out].sum() / max(1, len(held_out))),
            compression(training, self._text(held_out)),
        )

    def _text(self, ids: np.ndarray) -> bytes:
        return b"".join(self.tokenizer.token_bytes(int(i)) for i in ids if i != self.tokenizer.end_id)


def text_reference(vocab_size: int, unigram: float, bytes_per_token: float, sizes: Compression) -> Reference:
    """What the loss of a language model is compared with.

    Args:
        vocab_size: At least 1.
        unigram: Nats a held-out token costs by its frequency in training: see `data.compress`.
        bytes_per_token: Of the held-out text, more than 0.
        sizes: What compressors make of it.
    """
    rivals = {
        "unigram_bits_per_byte": (_("token frequencies"), bits_per_byte(unigram, bytes_per_token)),
        "gzip_bits_per_byte": ("gzip", sizes.gzip),
        "xz_bits_per_byte": ("xz", sizes.xz),
        "xz_given_training_bits_per_byte": (_("xz given the training text"), sizes.xz_given_training),
    }
    return Reference(
        unit=_("nats a token"),
        simple=unigram,
        simple_said=_("how often each token occurs"),
        figure="bits_per_byte",
        show=lambda bits: _("{bits:.2f} bits per byte").format(bits=bits),
        rivals=tuple(Rival(key, name, value) for key, (name, value) in rivals.items() if value is not None),
        even=math.log(vocab_size),
        even_said=f"ln({vocab_size:,})",
        even_among=_("{n:,} tokens").format(n=vocab_size),
        figure_per_loss=bits_per_byte(1.0, bytes_per_token),
        notes=(_("The text is long: gzip and xz were given only a part of it."),) if sizes.partial else (),
    )


def _design(config: DecoderConfig, length: int) -> Design:
    tree = families.decoder(config)
    flops = compute.training_flops(tree, length).total
    return Design(asdict(config), counts.parameters(tree).total, flops, length)


def settings(plan: Plan) -> DecoderConfig:
    """The network's settings in a plan, whose JSON has lists for tuples."""
    try:
        windows = plan.network["sliding_windows"]
        return DecoderConfig(**plan.network | {"sliding_windows": tuple(windows) if windows else None})
    except (KeyError, TypeError) as error:
        raise PellucidError(
            _("This is not a plan that can be followed."),
            f"plan.json, network: {error}",
            _("Give the plan.json of a run."),
        ) from error


def _tokenizer(documents: list[str], size: int, options: TrainOptions) -> tuple[Tokenizer, str]:
    """The tokenizer to use, and why."""
    if options.start_from:
        return Tokenizer.open(Path(options.start_from)), _("as in {folder}").format(folder=options.start_from)
    if options.tokenizer == "bytes":
        return Tokenizer.byte_level(), _("one token for each of the 256 bytes, and the end")
    if options.tokenizer:
        return Tokenizer.open(Path(options.tokenizer)), _("as in {folder}").format(folder=options.tokenizer)
    wanted, why = options.vocab, _("as given")
    if not wanted:
        minutes = options.minutes or 5
        most = 4096 if minutes <= 10 else 8192 if minutes <= 60 else 16384 if minutes <= 600 else 32768
        wanted = min(max(2 ** round(math.log2(max(1, size) / 2000)), 512), most)
        why = _("a token for about every 2,000 bytes of text, between 512 and {most}").format(most=most)
    tokenizer = Tokenizer.train(documents, wanted, options.family or "qwen3")
    if sum(map(len, documents)) > SAMPLE:
        why += _("; learned from {n:,} characters at even distances").format(n=SAMPLE)
    if tokenizer.vocab_size < wanted:
        why = _("the text supports no more than {n} ({wanted} were wanted)").format(
            n=tokenizer.vocab_size, wanted=wanted
        )
    return tokenizer, why
