"""What each layer of an encoder holds: linear probes on its frozen states, and one sentence seen layer by layer.

Probes: Alain & Bengio 2016; on the layers of BERT: Tenney et al. 2019; why they need controls: Hewitt & Liang 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.checkpoints.encoder import open_encoder
from pellucid.checkpoints.files import read_json
from pellucid.data import pairs
from pellucid.data.framed import FramedTokenizer
from pellucid.data.splits import split
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pellucid.networks.encoder import Encoder

FEWEST_TEXTS = 60
FEWEST = 10  # texts that a word or a position must occur in, to be asked about
MOST = 60  # examples of a word or a position: as many of each, or nearly
TEST = 0.3  # the share of the texts that probes are judged on
INVERSE_PENALTY = 0.01  # C of the logistic regression: strong enough for some 400 numbers seen in some 1,000 examples
NEGLIGIBLE = 0.01  # a change of accuracy that is not worth a word, however sure it is
BATCH = 32

WORD, POSITION, TOKEN, TEXT = QUESTIONS = ("word", "position", "token", "text")


@dataclass(frozen=True)
class Score:
    """How often probes are right on held-out texts: one entry for each way of sharing the texts out."""

    accuracies: tuple[float, ...]
    controls: tuple[float, ...] = ()  # of probes that learned from the same labels, shuffled

    @property
    def accuracy(self) -> float:
        """The mean over the ways of sharing the texts out."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Their standard deviation: held-out texts overlap, so it is no standard error."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def control(self) -> float:
        """What a probe reaches that has nothing to learn."""
        return float(np.mean(self.controls))

    def json(self) -> dict[str, Any]:
        told = {"accuracy": self.accuracy, "spread": self.spread, "each": self.accuracies}
        return told | ({"control": self.control} if self.controls else {})


@dataclass(frozen=True)
class Probes:
    """What linear probes find in each layer.

    The questions: which "word" a token's state stands on, at which "position"; the class of the whole text, from the
    state of one "token" drawn at random, and from the mean over the "text".

    Attributes:
        layers: By layer (0: the embedding) and question.
        chance: By question: always saying the commonest answer.
        tokens_alone: By question: a probe that sees which tokens are there and no network. Not of "word".
        words: Those asked about.
        positions: How many are asked about.
        classes: Of the texts.
        texts: How many.
        notes: What was left out or assumed.
    """

    layers: dict[int, dict[str, Score]]
    chance: dict[str, float]
    tokens_alone: dict[str, Score]
    words: list[str]
    positions: int
    classes: list[str]
    texts: int
    notes: list[str] = field(default_factory=list)

    def shuffled(self, question: str) -> Score:
        """The controls of all layers: what probes reach that have nothing to learn."""
        by_layer = [scores[question].controls for scores in self.layers.values()]
        return Score(tuple(np.mean(by_layer, axis=0).tolist()))

    def change(self, question: str) -> tuple[float, float]:
        """The last layer's accuracy less the first one's: mean and standard deviation over the same held-out texts."""
        first, last = (
            np.array(self.layers[layer][question].accuracies) for layer in (min(self.layers), max(self.layers))
        )
        return Score(tuple(last - first)).accuracy, Score(tuple(last - first)).spread

    def best(self, question: str) -> int:
        """The layer in which a probe finds most; of equal ones the first."""
        return max(self.layers, key=lambda layer: (self.layers[layer][question].accuracy, -layer))

    def summary(self) -> list[str]:
        """What the figures say, question by question, whatever it is."""
        first, last = min(self.layers), max(self.layers)
        lines = []
        for question, name in names().items():
            mean, spread = self.change(question)
            if abs(mean) <= max(2 * spread, NEGLIGIBLE):
                said = _("{question}: about level from layer {first} to layer {last} ({change})")
            elif mean < 0:
                said = _("{question}: fades from layer {first} to layer {last} ({change})")
            else:
                said = _("{question}: grows from layer {first} to layer {last} ({change})")
            change = f"{mean:+.1%} ± {spread:.1%}"
            best = self.best(question)
            said = said.format(question=name, first=first, last=last, change=change)
            lines.append(
                said
                + _("; highest in layer {best}: {accuracy:.1%}").format(
                    best=best, accuracy=self.layers[best][question].accuracy
                )
            )
        return lines

    def json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "layers": {n: {name: score.json() for name, score in scores.items()} for n, scores in self.layers.items()},
            "chance": self.chance,
            "tokens_alone": {name: score.json() for name, score in self.tokens_alone.items()},
            "words": self.words,
            "positions": self.positions,
            "classes": self.classes,
            "texts": self.texts,
            "notes": self.notes,
            "summary": self.summary(),
        }

    def save(self, path: str | Path) -> None:
        """Draw accuracy against layer: probes with their spread, controls dashed, chance dotted.

        Raises:
            PellucidError: as `check_picture`.
        """
        figure, axes = _figure(len(QUESTIONS), path, width=3.2, height=2.9, across=len(QUESTIONS))
        layers = sorted(self.layers)
        for axis, (question, name) in zip(axes, names(drawn=True).items(), strict=True):
            scores = [self.layers[layer][question] for layer in layers]
            means, spreads = np.array([s.accuracy for s in scores]), np.array([s.spread for s in scores])
            axis.fill_between(layers, means - spreads, means + spreads, alpha=0.25, linewidth=0)
            axis.plot(layers, means, "o-", label=_drawn("probe", _("probe")))
            axis.plot(layers, [s.control for s in scores], "--", label=_drawn("shuffled labels", _("shuffled labels")))
            axis.axhline(self.chance[question], color="grey", linestyle=":", label=_drawn("chance", _("chance")))
            if question in self.tokens_alone:
                alone = self.tokens_alone[question].accuracy
                axis.axhline(alone, color="green", linestyle="-.", label=_drawn("tokens alone", _("tokens alone")))
            axis.set(title=name, xlabel=_drawn("layer", _("layer")), ylim=(0, 1.03), xticks=layers)
        axes[0].set_ylabel(_drawn("right on held-out texts", _("right on held-out texts")))
        axes[-1].legend(fontsize=7)
        figure.savefig(path, dpi=120)


def names(drawn: bool = False) -> dict[str, str]:
    """What the questions are called, in the user's language; `drawn`: where a picture can show it."""
    told = {
        WORD: ("word", _("word")),
        POSITION: ("position", _("position")),
        TOKEN: ("class, from one token", _("class, from one token")),
        TEXT: ("class, from the text", _("class, from the text")),
    }
    return {key: _drawn(*both) if drawn else both[1] for key, both in told.items()}


def probe(
    encoder: str | Path | Model,
    data: str | Path,
    target: str,
    text: str | None = None,
    *,
    layers: Sequence[int] | None = None,
    texts: int = 1000,
    length: int = 64,
    words: int = 50,
    positions: int = 24,
    seeds: int = 5,
) -> Probes:
    """Ask each layer of a frozen encoder what a linear classifier can tell from it about texts it has not seen.

    Of a text that is longer than ``length`` a passage is read that begins anywhere, so that how texts begin does
    not tell positions. Probes are logistic regressions on standardised states; texts are shared out ``seeds`` times.

    Args:
        encoder: A run of texts with labels, the folder of a BERT, or what `open` returned for one.
        data: A table of texts and their classes.
        target: The column of the classes.
        text: The column of the texts; needed when there are several.
        layers: Which, 0 being the embedding; None: all.
        texts: How many to read, at most, drawn at random.
        length: Tokens of a text, at most, with those that frame it.
        words: How many of the commonest words to tell apart, at most.
        positions: How many of the first positions to tell apart, at most.
        seeds: How often to share the texts out anew, for the spread.

    Raises:
        PellucidError: when there is no encoder, a column is missing, or there are too few or too short texts.
    """
    for option, value, least in (
        ("texts", texts, FEWEST_TEXTS), ("length", length, 8), ("words", words, 2), ("positions", positions, 2),
        ("seeds", seeds, 2),
    ):  # fmt: skip
        if value < least:
            raise PellucidError(
                _("{option} {value} makes no sense.").format(option=f"--{option}", value=value),
                f"--{option}",
                _("It must be at least {n}.").format(n=least),
            )
    folder = _folder(encoder)
    network, tokenizer = open_encoder(folder).eval(), FramedTokenizer.open(folder)
    layers = _checked_layers(network, layers)
    told = pairs.read_labelled(data, target, text)
    notes = list(told.notes)
    if len(set(told.groups.tolist())) < FEWEST_TEXTS:
        raise PellucidError(
            _("There are too few texts to probe with: {n}.").format(n=len(set(told.groups.tolist()))),
            str(data),
            _("Use at least {n} different ones.").format(n=FEWEST_TEXTS),
        )
    random = np.random.default_rng(0)
    drawn = np.sort(random.permutation(len(told.texts))[:texts])
    if len(drawn) < len(told.texts):
        notes.append(_("{n:,} of {all:,} texts are read, drawn at random.").format(n=len(drawn), all=len(told.texts)))
    if (folder / "plan.json").exists():
        notes.append(
            _("Where the network has learned from these very texts, their class is remembered, not understood.")
        )
    ids = [tokenizer.encode(told.texts[row]) for row in drawn]
    passages = [_passage(text_ids, min(length, network.config.context), random) for text_ids in ids]
    asked = _Asked.of(passages, told.labels[drawn], tokenizer, words, positions, random, str(data))
    states = _states(network, passages, asked, layers)
    splits = [
        split(len(drawn), told.labels[drawn], told.groups[drawn], (1 - TEST, 0, TEST), seed) for seed in range(seeds)
    ]
    return _measure(asked, states, [(part.train, part.test) for part in splits], tokenizer, told.classes, notes)


# What is asked


@dataclass(frozen=True, eq=False)
class _Question:
    """Examples of one question: the text each is from, the answer, and which tokens are seen without a network."""

    texts: np.ndarray
    answers: np.ndarray
    tokens: list[list[int]]
    places: np.ndarray  # which of the kept states


@dataclass(frozen=True, eq=False)
class _Asked:
    """All questions, and the tokens whose states they need: (text, place) in rising order."""

    questions: dict[str, _Question]
    kept: np.ndarray
    words: list[int]
    positions: int

    @staticmethod
    def of(
        passages: list[list[int]],
        labels: np.ndarray,
        tokenizer: FramedTokenizer,
        words: int,
        positions: int,
        random: np.random.Generator,
        where: str,
    ) -> _Asked:
        text_T = np.repeat(np.arange(len(passages)), [len(ids) - 2 for ids in passages])
        place_T = np.concatenate([np.arange(1, len(ids) - 1) for ids in passages])
        id_T = np.concatenate([ids[1:-1] for ids in passages]).astype(np.int64)

        commonest = [
            (id, found)
            for id in _by_frequency(id_T)
            if _is_word(tokenizer.show(id)) and len(np.unique(text_T[found := np.flatnonzero(id_T == id)])) >= FEWEST
        ][:words]  # fmt: skip
        reached = [
            found for place in range(1, positions + 1) if len(found := np.flatnonzero(place_T == place)) >= FEWEST
        ]
        if len(commonest) < 2 or len(reached) < 2:
            raise PellucidError(
                _("The texts are too short, or too different, to tell words and positions by."),
                where,
                _("At least two words and two positions must occur in {n} texts each.").format(n=FEWEST),
            )

        def some(examples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            drawn = [np.sort(random.permutation(of_one)[:MOST]) for of_one in examples]
            return np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(of_one) for of_one in drawn])

        word_T, word_N = some([found for _id, found in commonest])
        position_T, position_N = some(reached)
        first_T = np.concatenate([[0], np.flatnonzero(np.diff(text_T)) + 1])
        token_T = first_T + (random.random(len(first_T)) * np.bincount(text_T)).astype(np.int64)
        kept = np.unique(np.concatenate([word_T, position_T, token_T]))

        def question(token: np.ndarray, answer_N: np.ndarray) -> _Question:
            return _Question(
                text_T[token], answer_N, [[id] for id in id_T[token].tolist()], np.searchsorted(kept, token)
            )

        whole = np.arange(len(passages))
        return _Asked(
            {
                WORD: question(word_T, word_N),
                POSITION: question(position_T, position_N),
                TOKEN: question(token_T, labels),
                TEXT: _Question(whole, labels, [ids[1:-1] for ids in passages], whole),
            },
            np.stack([text_T[kept], place_T[kept]], 1),
            [id for id, _found in commonest],
            len(reached),
        )


def _by_frequency(ids: np.ndarray) -> list[int]:
    found, count = np.unique(ids, return_counts=True)
    return found[np.argsort(-count, kind="stable")].tolist()


def _is_word(shown: str) -> bool:
    """Whether a token is letters: no punctuation, no number, no piece that goes on a word, no part of a character."""
    return shown.removeprefix("␣").isalpha()


def _passage(ids: list[int], length: int, random: np.random.Generator) -> list[int]:
    """The text's tokens in their frame, or as many of them as fit, beginning anywhere."""
    body = ids[1:-1]
    if len(ids) <= length:
        return ids
    start = int(random.integers(len(body) - (length - 2) + 1))
    return [ids[0], *body[start : start + length - 2], ids[-1]]


# States and probes


@torch.inference_mode()
def _states(
    network: Encoder, passages: list[list[int]], asked: _Asked, layers: Sequence[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By layer: the kept tokens' states (K, d_model), and the mean over each text's tokens (N, d_model)."""
    width = network.config.d_model
    states = {
        layer: (np.empty((len(asked.kept), width), np.float32), np.empty((len(passages), width), np.float32))
        for layer in layers
    }
    for texts, found in _run(network, passages):
        for row, text in enumerate(texts):
            kept = slice(*np.searchsorted(asked.kept[:, 0], [text, text + 1]))
            places = asked.kept[kept, 1]
            for layer, (token_KD, mean_ND) in states.items():
                state_TD = found[layer][row]
                token_KD[kept] = state_TD[places].numpy()
                mean_ND[text] = state_TD[1 : len(passages[text]) - 1].mean(0).numpy()
    return states


def _run(network: Encoder, passages: Sequence[list[int]]) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
    """Which passages, and all their layers' states (B, T, d_model), texts of like length together."""
    order = sorted(range(len(passages)), key=lambda text: len(passages[text]))
    for start in range(0, len(order), BATCH):
        texts = order[start : start + BATCH]
        longest = len(passages[texts[-1]])
        filled = [passages[text] + [network.config.pad_id] * (longest - len(passages[text])) for text in texts]
        mask_BT = torch.tensor([[place < len(passages[text]) for place in range(longest)] for text in texts])
        yield texts, network.hidden_states(torch.tensor(filled), mask_BT)


def _measure(
    asked: _Asked,
    states: dict[int, tuple[np.ndarray, np.ndarray]],
    splits: list[tuple[np.ndarray, np.ndarray]],
    tokenizer: FramedTokenizer,
    classes: list[str],
    notes: list[str],
) -> Probes:
    found: dict[int, dict[str, Score]] = {layer: {} for layer in states}
    chance, tokens_alone = {}, {}
    for name, question in asked.questions.items():
        parts = [tuple(np.flatnonzero(np.isin(question.texts, part)) for part in both) for both in splits]
        chance[name] = float(np.bincount(question.answers).max() / len(question.answers))
        if name != WORD:
            tokens_alone[name] = _score(_counts(question.tokens), question.answers, parts, _right_by_tokens)
        for layer, (token_KD, mean_ND) in states.items():
            state_ND = (mean_ND if name == TEXT else token_KD)[question.places]
            found[layer][name] = _score(state_ND, question.answers, parts, _right_by_states, controlled=True)
    words = [tokenizer.show(id) for id in asked.words]
    return Probes(
        found, chance, tokens_alone, words, asked.positions, classes, len(splits[0][0]) + len(splits[0][1]), notes
    )


def _score(
    x: Any, answer_N: np.ndarray, parts: list[Any], right: Callable[..., float], controlled: bool = False
) -> Score:
    accuracies, controls = [], []
    for seed, (train, test) in enumerate(parts):
        accuracies.append(right(x[train], answer_N[train], x[test], answer_N[test]))
        if controlled:
            shuffled = np.random.default_rng(seed).permutation(answer_N[train])
            controls.append(right(x[train], shuffled, x[test], answer_N[test]))
    return Score(tuple(accuracies), tuple(controls))


def _right_by_states(x_ND: np.ndarray, y_N: np.ndarray, x_MD: np.ndarray, y_M: np.ndarray) -> float:
    """The share of held-out examples that a linear probe, fitted on the others, gets right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)).fit(x_ND, y_N)
    return float(fitted.score(x_MD, y_M))


def _right_by_tokens(x_NV: Any, y_N: np.ndarray, x_MV: Any, y_M: np.ndarray) -> float:
    """The same of which tokens there are."""
    from sklearn.linear_model import LogisticRegression

    return float(LogisticRegression(max_iter=2000).fit(x_NV, y_N).score(x_MV, y_M))


def _counts(tokens: list[list[int]]) -> Any:
    """How often each token is there, log(1 + n), as a sparse matrix (N, V)."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    ids = np.concatenate(tokens).astype(np.int64)
    counted = csr_matrix((np.ones(len(ids)), (rows, ids)))  # equal places are added up
    return counted.log1p()


# One sentence


@dataclass(frozen=True, eq=False)
class Sentence:
    """One sentence, layer by layer, by the cosines between states.

    Attributes:
        tokens: The sentence's, without its frame; what occurs twice with its place, as `the:1`.
        others: The sentences that it is compared with.
        similarity: By layer (0: the embedding): (T, T) between the tokens.
        nearest: By layer, for each token: the most similar other token of this sentence or of the others (then with
            the number of the sentence, as `kitten(1)`), and how similar it is.
        alike: By layer: how similar the mean over the tokens is to that of each of the others.
    """

    tokens: list[str]
    others: list[str]
    similarity: dict[int, np.ndarray]
    nearest: dict[int, list[tuple[str, float]]]
    alike: dict[int, list[float]]

    def json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return vars(self) | {"similarity": {layer: of_TT.tolist() for layer, of_TT in self.similarity.items()}}

    def save(self, path: str | Path) -> None:
        """Draw each layer's similarities between tokens as a grid of colours.

        Raises:
            PellucidError: as `check_picture`.
        """
        size = max(2.2, 0.3 * len(self.tokens) + 0.8)
        figure, axes = _figure(len(self.similarity), path, width=size, height=size, across=4)
        labels = [_drawn(str(place), token) for place, token in enumerate(self.tokens, 1)]
        for axis, (layer, of_TT) in zip(axes, self.similarity.items(), strict=False):
            shown = axis.imshow(of_TT, vmin=-1, vmax=1, cmap="RdBu_r")
            axis.set_title(f"{_drawn('layer', _('layer'))} {layer}", fontsize=9)
            axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
            axis.set_yticks(range(len(labels)), labels, fontsize=8)
        figure.colorbar(shown, ax=list(axes), shrink=0.6)
        figure.savefig(path, dpi=120)


@torch.inference_mode()
def sentence_by_layer(
    encoder: str | Path | Model,
    sentence: str,
    others: Sequence[str] = (),
    *,
    layers: Sequence[int] | None = None,
) -> Sentence:
    """Look at one sentence in each layer: which tokens are alike, and which of the other sentences it is like.

    Args:
        encoder: As for `probe`.
        sentence: At least two tokens.
        others: Sentences to compare it with.
        layers: As for `probe`.

    Raises:
        PellucidError: when there is no encoder or no such layer, or a sentence is empty or too long.
    """
    folder = _folder(encoder)
    network, tokenizer = open_encoder(folder).eval(), FramedTokenizer.open(folder)
    layers = _checked_layers(network, layers)
    sentences = [tokenizer.encode(said) for said in (sentence, *others)]
    for said, ids, fewest in zip((sentence, *others), sentences, [4] + [3] * len(others), strict=True):
        if not fewest <= len(ids) <= network.config.context:
            raise PellucidError(
                _("This sentence has {n} tokens.").format(n=len(ids) - 2),
                said,
                _("Use {fewest} to {most}.").format(fewest=fewest - 2, most=network.config.context - 2),
            )
    shown = [_named([tokenizer.show(id).removeprefix("␣") for id in ids[1:-1]]) for ids in sentences]
    labels = shown[0] + [f"{token}({number})" for number, tokens in enumerate(shown[1:], 1) for token in tokens]
    states = [network.hidden_states(torch.tensor([ids])) for ids in sentences]
    similarity, nearest, alike = {}, {}, {}
    own = len(shown[0])
    for layer in layers:
        bodies = [found[layer][0, 1:-1] for found in states]
        unit_TD = torch.nn.functional.normalize(torch.cat(bodies), dim=-1)
        cosine_OT = unit_TD[:own] @ unit_TD.T
        similarity[layer] = cosine_OT[:, :own].numpy()
        best = cosine_OT.masked_fill(torch.eye(own, len(labels), dtype=torch.bool), -2).max(-1)
        nearest[layer] = [
            (labels[at], value) for at, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        mean_SD = torch.nn.functional.normalize(torch.stack([body.mean(0) for body in bodies]), dim=-1)
        alike[layer] = (mean_SD[1:] @ mean_SD[0]).tolist()
    return Sentence(shown[0], list(others), similarity, nearest, alike)


def _named(tokens: list[str]) -> list[str]:
    """Tokens that occur twice with their place."""
    return [f"{token}:{place}" if tokens.count(token) > 1 else token for place, token in enumerate(tokens, 1)]


# What both need


def _folder(encoder: str | Path | Model) -> Path:
    """The folder of an encoder.

    Raises:
        PellucidError: when there is none.
    """
    folder = Path((encoder.folder or "") if isinstance(encoder, Model) else encoder)
    if folder.is_file() or read_json(folder / "config.json").get("model_type") != "bert":
        raise PellucidError(
            _("This network is no encoder."),
            str(folder),
            _("Layers are probed of a BERT, or of what was trained here on texts with labels."),
        )
    return folder


def _checked_layers(network: Encoder, layers: Sequence[int] | None) -> list[int]:
    last = network.config.n_layers
    if layers is None:
        return list(range(last + 1))
    for layer in layers:
        if not 0 <= layer <= last:
            raise PellucidError(
                _("There is no layer {n}.").format(n=layer), "--layers", _("Use 0 to {last}.").format(last=last)
            )
    return sorted(set(layers))


def check_picture(path: str | Path) -> None:
    """Refuse what no picture can be saved as, before anything is computed.

    Raises:
        PellucidError: when the name does not end in .png, .svg or .pdf, or its folder is not there.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise PellucidError(_("Pictures are written as .png, .svg or .pdf."), str(path), _("Name such a file."))
    if not path.parent.is_dir():
        raise PellucidError(_("There is no such folder."), str(path.parent), _("Check the path."))


def _figure(panels: int, path: str | Path, width: float, height: float, across: int) -> tuple[Figure, np.ndarray]:
    """An empty figure of so many panels, in a font that has Chinese where this machine has one."""
    import matplotlib
    from matplotlib.figure import Figure

    check_picture(path)
    matplotlib.rcParams["font.family"] = [*_fonts(), "DejaVu Sans"]
    columns = min(panels, across)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns + 0.6, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for empty in axes[panels:]:
        empty.remove()
    return figure, axes[:panels]


CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "Noto Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB"),
    *("Heiti TC", "Arial Unicode MS"),
)


def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    return [name for name in CHINESE_FONTS if name in there]


def _drawn(plain: str, wanted: str) -> str:
    """The wording wanted, or a plain one where no font here could draw it."""
    return wanted if wanted.isascii() or _fonts() else plain
