"""What a user may say about a training. The docstrings of the fields are the command line's help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pellucid.errors import PellucidError
from pellucid.language import _

Family = Literal["qwen3", "qwen2", "llama", "mistral", "gpt2", "gpt1", "sinusoidal"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `pellucid train` and `pl.train`. What is left out (None) the plan derives, and says why."""

    minutes: float | None = None
    """How long to train, in minutes of training steps: the one dial. 5 when neither --steps nor --size is given."""
    steps: int | None = None
    """How many training steps to make, instead of --minutes."""
    size: str | None = None
    """How many parameters the network should have, such as 3M or 124M; alone: trained on 20 tokens a parameter."""
    task: Literal["text", "table", "pictures", "labels", "pairs", "boxes"] | None = None
    """What is to be learned, where SOURCE alone does not say it."""
    target: str | None = None
    """The column to predict: a number or a category of a table, the category of a text, or a text to be written."""
    text: str | None = None
    """The column that holds the text, for .csv, .jsonl, .parquet and data sets on disk."""
    columns: str | None = None
    """The columns to predict from, with commas between them; all but the target, when left out."""
    validation: str | None = None
    """Data to validate on, instead of a part held out of SOURCE."""
    test: str | None = None
    """Data to test the finished network on, instead of a part held out of SOURCE."""
    scaling: Literal["standard", "minmax", "none"] | None = None
    """How a table's numbers are scaled: to mean 0 and deviation 1, to the range 0 to 1, or not at all."""
    picture_size: int | None = None
    """Height and width to which pictures are brought."""
    tokenizer: str | None = None
    """A tokenizer.json (or a folder with one) to use, or `bytes` for one token a byte, instead of training one."""
    vocab: int | None = None
    """Size of the vocabulary, end token included."""
    family: Family | None = None
    """The kind of network: qwen3 (the default), qwen2, llama, mistral, gpt2, gpt1 or sinusoidal."""
    network: str | None = None
    """For pictures: lenet5, residual or a list of layers, as in docs/networks.md."""
    layers: str | None = None
    """For tables: neurons of each hidden layer, as 16-8; 0: none."""
    activation: str | None = None
    """What each hidden neuron makes of its sum: relu, leaky_relu, tanh, sigmoid, gelu, silu, linear or step."""
    norm: Literal["none", "layer", "rms", "batch"] | None = None
    """Normalisation after each hidden layer."""
    bias: Annotated[bool, Parameter(negative="--no-bias")] = True
    """Whether neurons have a bias."""
    init: str | None = None
    """How the weights begin: default, he, xavier, normal, uniform or zero."""
    width: int | None = None
    """Width of the vectors that flow between the layers (d_model)."""
    depth: int | None = None
    """Number of layers."""
    heads: int | None = None
    """Number of attention heads in a layer."""
    kv_heads: int | None = None
    """Number of key and value heads, fewer than --heads for grouped-query attention."""
    feed_forward: int | None = None
    """Width of the feed-forward layer (d_ff)."""
    context: int | None = None
    """How many tokens the network sees at once."""
    batch: int | None = None
    """Examples (rows, pictures, sequences) that go through the network at once (the micro-batch)."""
    accumulation: int | None = None
    """Micro-batches whose gradients are added up before one update."""
    loss: str | None = None
    """squared_error, absolute, cross_entropy, binary_cross_entropy, hinge or perceptron."""
    class_weights: Literal["balanced"] | None = None
    """balanced: rare classes count as much as common ones."""
    optimiser: Literal["muon", "adamw", "adam", "sgd", "rmsprop"] | None = None
    """muon (for the matrices of the blocks, AdamW for the rest), adamw, adam, sgd or rmsprop for everything."""
    momentum: float | None = None
    """Momentum of sgd and rmsprop; 0 when left out."""
    nesterov: bool = False
    """Nesterov's momentum, for sgd."""
    l1: float = 0.0
    """Rate of the L1 penalty on weights (not on biases)."""
    l2: float = 0.0
    """Rate of the L2 penalty on weights (not on biases)."""
    learning_rate: float | None = None
    """Peak learning rate (with muon: of the matrices in the blocks)."""
    embedding_rate: float | None = None
    """Peak learning rate of embedding, head, norms and biases, with muon."""
    schedule: Literal["stable", "cosine", "constant"] | None = None
    """stable: warm-up, level, linear decay to 0; cosine: warm-up, then a half cosine to a tenth; constant."""
    warmup: float | None = None
    """Share of the steps in which the learning rate rises from 0."""
    decay: float | None = None
    """Share of the steps, at the end, in which the stable schedule falls to 0."""
    weight_decay: float | None = None
    """Decay of the matrices' weights (decoupled, times the learning rate)."""
    dropout: float | None = None
    """Share of numbers dropped, on the embedding and on both additions of each block (never inside attention)."""
    clip: float | None = None
    """Gradients longer than this (norm over all parameters) are shortened to it; 0: never."""
    patience: int | None = None
    """Stop early after this many evaluations without a better one; 0 never stops early."""
    evaluations: int = 20
    """How many times to evaluate on held-out data, evenly spread."""
    save_seconds: float = 60.0
    """Save a checkpoint at least this often, in seconds."""
    precision: Literal["fp32", "bf16"] | None = None
    """Number format of the matrix products; weights are always kept in fp32."""
    device: str | None = None
    """cpu, cuda or mps. The fastest there is, when left out."""
    threads: int | None = None
    """CPU threads. All physical cores, when left out."""
    recompute: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: slower by about a third."""
    compile: bool = False
    """Compile the network with torch.compile first (pays on a GPU)."""
    deterministic: bool = False
    """On a GPU, choose the slower operations that give the same bytes each time (on a CPU it is always so)."""
    seed: int = 0
    """One seed gives one result: same machine, versions and thread count, same bytes."""
    start_from: Annotated[str | None, Parameter(name="--from")] = None
    """Go on from a model: a run, or any folder that `pellucid generate` reads. Its tokenizer and shape are kept."""
    plan: str | None = None
    """A plan.json of an earlier run, to be followed to the letter."""

    def __post_init__(self) -> None:
        positive: tuple[str, ...] = ("minutes", "steps", "vocab", "width", "depth", "heads", "kv_heads", "feed_forward")
        positive += ("context", "batch", "accumulation", "learning_rate", "embedding_rate", "evaluations")
        positive += ("threads", "picture_size")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise _refuse(name, value, _("It must be more than 0."))
        for name in ("weight_decay", "patience", "save_seconds", "seed", "clip", "l1", "l2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise _refuse(name, value, _("It must not be negative."))
        for name in ("warmup", "decay", "dropout", "momentum"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise _refuse(name, value, _("It must be at least 0 and less than 1."))
        if self.momentum and self.optimiser not in ("sgd", "rmsprop"):
            raise _refuse("momentum", self.momentum, _("Only --optimiser sgd and rmsprop let it be set."))
        if self.nesterov and not (self.momentum and self.optimiser == "sgd"):
            raise PellucidError(
                _("Nesterov's momentum is a kind of momentum of SGD, and there is none."),
                "--nesterov",
                _("Say --optimiser sgd and a --momentum, such as 0.9, too."),
            )
        if self.seed >= 2**63:
            raise _refuse("seed", self.seed, _("It must be less than 2**63."))
        if self.size is not None:
            parameters(self.size)
        if (self.warmup or 0) + (self.decay or 0) > 1:
            raise _refuse("decay", self.decay, _("Warm-up and decay together must not be more than 1."))
        if self.minutes is not None and self.steps is not None:
            raise PellucidError(
                _("Both --minutes and --steps were given."),
                "--minutes, --steps",
                _("Give one: each decides how long to train."),
            )

    @classmethod
    def of(cls, options: dict[str, Any]) -> TrainOptions:
        """The options named in ``options``, or a PellucidError that names the unknown one."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise PellucidError(
                    _("There is no option {name!r}.").format(name=name),
                    "pl.train",
                    _("Options: {names}").format(names=", ".join(known)),
                )
        return cls(**options)

    def given(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def spelt(name: str) -> str:
        """An option as the command line spells it."""
        return "--from" if name == "start_from" else f"--{name.replace('_', '-')}"


def parameters(size: str) -> int:
    """The number in a size such as "3M", "1.5B", "400k" or "124000000"."""
    units = {"k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
    text = size.strip().lower()
    try:
        number = float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
    except ValueError:
        number = 0
    if not 1 <= number < float("inf"):
        raise _refuse("size", size, _("Give a number of parameters, such as 3M or 124M."))
    return int(number)


def _refuse(name: str, value: Any, fix: str) -> PellucidError:
    option = TrainOptions.spelt(name)
    value = f"{value:g}" if isinstance(value, float) else value
    return PellucidError(_("{option} {value} makes no sense.").format(option=option, value=value), option, fix)
