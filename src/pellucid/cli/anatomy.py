"""`pellucid anatomy`: what a network is made of, and what it takes to train and to run, by its shapes alone."""

from __future__ import annotations

import json as json_
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from pellucid.cli.app import app
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from pellucid.anatomy.report import Anatomy

SHAPE = Group("A shape typed by hand", sort_key=1)
QUESTIONS = Group("Questions", sort_key=2)
TRAINING = Group("What a training takes: --train", sort_key=3)
SERVING = Group("What running it takes: --serve", sort_key=4)
BOTH = Group("Hardware, for --train, --serve and --budget", sort_key=5)
TABLES = Group("Tables", sort_key=6)
OUTPUT = Group("Output", sort_key=7)


def whole(_hint: Any, tokens: Any) -> int:
    """A whole number: 2.5 layers are not rounded."""
    try:
        return int(tokens[0].value.replace(",", ""))
    except ValueError as error:
        raise ValueError(f"{tokens[0].value!r} is no whole number") from error


def amount(_hint: Any, tokens: Any) -> float:
    """A number as people write it: 2T, 300B, 1.5e9, 7m, 10k; thousands are 1,000."""
    text = tokens[0].value.replace(",", "").replace("_", "")
    scale = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}.get(text[-1:].lower(), 1)
    try:
        return float(text[:-1] if scale != 1 else text) * scale
    except ValueError as error:
        raise ValueError(f"{tokens[0].value!r} is no number such as 2T, 300B or 1.5e9") from error


Amount = Annotated[float | None, Parameter(converter=amount, accepts_keys=False)]
Whole = Annotated[int | None, Parameter(converter=whole, accepts_keys=False)]
Shape = Annotated[Whole, Parameter(group=SHAPE)]


@app.command
def anatomy(
    what: str | None = None,
    /,
    *,
    family: Annotated[str | None, Parameter(group=SHAPE)] = None,
    layers: Shape = None,
    d_model: Shape = None,
    heads: Shape = None,
    kv_heads: Shape = None,
    head_dim: Shape = None,
    d_ff: Shape = None,
    vocab: Shape = None,
    context: Shape = None,
    explain: Annotated[str | None, Parameter(group=QUESTIONS)] = None,
    compare: Annotated[str | None, Parameter(group=QUESTIONS)] = None,
    what_if: Annotated[tuple[str, ...], Parameter(group=QUESTIONS)] = (),
    train: Annotated[bool, Parameter(group=TRAINING)] = False,
    tokens: Annotated[Amount, Parameter(group=TRAINING)] = None,
    optimiser: Annotated[str | None, Parameter(group=TRAINING)] = None,
    precision: Annotated[str | None, Parameter(group=TRAINING)] = None,
    sharding: Annotated[str | None, Parameter(group=TRAINING)] = None,
    recompute: Annotated[bool, Parameter(group=TRAINING)] = False,
    utilisation: Annotated[float | None, Parameter(group=TRAINING)] = None,
    serve: Annotated[bool, Parameter(group=SERVING)] = False,
    format: Annotated[str | None, Parameter(group=SERVING)] = None,
    cache_format: Annotated[str | None, Parameter(group=SERVING)] = None,
    device: Annotated[str | None, Parameter(group=BOTH)] = None,
    devices: Annotated[Whole, Parameter(group=BOTH)] = None,
    price: Annotated[float | None, Parameter(group=BOTH)] = None,
    batch: Annotated[Whole, Parameter(group=BOTH)] = None,
    length: Annotated[Whole, Parameter(group=BOTH)] = None,
    budget: Annotated[Amount, Parameter(group=BOTH)] = None,
    list: Annotated[bool, Parameter(group=TABLES)] = False,
    hardware: Annotated[bool, Parameter(group=TABLES)] = False,
    save: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    depth: Annotated[Whole, Parameter(group=OUTPUT)] = None,
    json: Annotated[bool, Parameter(group=OUTPUT)] = False,
) -> None:
    """Parameters, neurons and dimensions; size, memory, time and cost: each number with what makes it.

    Nothing is trained, loaded or allocated.

    Parameters
    ----------
    what
        A published model (`gpt3`, `llama-2-70b`; --list shows all), one of our runs, a Hugging Face folder or its
        config.json, a .safetensors or .gguf (its header is read), a shape (`784-128-10`), or `module:function` that
        returns a torch module. With --list, words to search for.
    family
        gpt1, gpt2, llama, mistral, qwen2 or qwen3, of the sizes that follow; what is left out is derived, and said.
    layers
        Blocks.
    d_model
        Width of the residual stream.
    heads
        Query heads.
    kv_heads
        Key and value heads.
    head_dim
        Width of a head.
    d_ff
        Width of the feed-forward layer.
    vocab
        Tokens in the vocabulary.
    context
        The longest text, in tokens.
    explain
        The formula of a count with this network's numbers: `feed-forward`, `blocks.3.attention`, `neurons`,
        `multiply-adds head`, or `all`.
    compare
        Another network, put side by side: where the difference lies.
    what_if
        Count again with a setting changed, `d_model=512`; may be given several times.
    train
        Memory of a device, FLOPs, time, money and energy of a training.
    tokens
        How many tokens it goes through: 2T, 300B, 1.5e9. What was published, when left out.
    optimiser
        adamw, adamw-8bit, muon, momentum or sgd; adamw, when left out.
    precision
        mixed (bf16 weights and an fp32 copy), mixed-fp32, autocast, fp32 or bf16; mixed, when left out.
    sharding
        How devices share the training state: none, ddp, zero1, zero2, zero3 or fsdp; fsdp, where there are several.
    recompute
        Keep each block's input only, and compute the rest again.
    utilisation
        The share of the peak that is reached, between 0 and 1; published trainings' median, when left out.
    serve
        Memory for weights and cache, whether it fits, how fast at most, what a million tokens cost at least.
    format
        Number format of the weights: bf16, int8, int4, Q4_K_M and so on; bf16, when left out.
    cache_format
        Number format of keys and values; bf16, when left out.
    device
        a100-80gb, h100-sxm, rtx-4090 and so on (--hardware shows all); `here` measures this machine.
    devices
        How many.
    price
        $ a device and hour.
    batch
        Texts or rows at once: on one device for --train, in all for --serve.
    length
        Tokens of a text; the context, when left out.
    budget
        Dollars: what they buy on --device, and the best model for that.
    list
        The published models that can be named.
    hardware
        The devices that can be named, with sources.
    save
        A picture of where the parameters are, as .html or .svg.
    depth
        How far to unfold the tree.
    json
        Print one JSON object.
    """
    given = {
        name: value for name, value in locals().items() if value is not None and value is not False and value != ()
    }
    question = _question(given)
    from pellucid.anatomy import questions

    answer: Any
    if question == "list":
        answer = questions.models(what or "")
    elif question == "hardware":
        answer = questions.hardware()
    elif question == "budget":
        answer = questions.budget(given["budget"], **_only(given, *BESIDE["budget"]))
    else:
        network = _network(what, given)
        answer = _asked(network, question, given)
        if save:
            network.save(save)
    _show(answer, given)
    if save:
        print(_("Written: {path}").format(path=save), file=sys.stderr)


# which options have a meaning beside a question; "" is the report of a network
BESIDE: dict[str, tuple[str, ...]] = {
    "": ("length", "depth"),
    "explain": ("length",),
    "compare": (),
    "what_if": (),
    "train": (
        *("tokens", "optimiser", "precision", "sharding", "recompute", "utilisation"),
        *("device", "devices", "price", "batch", "length"),
    ),
    "serve": ("format", "cache_format", "device", "devices", "price", "batch", "length"),
    "budget": ("device", "utilisation", "price"),
    "list": (),
    "hardware": (),
}
SIZES = ("layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab", "context")


def _question(given: dict[str, Any]) -> str:
    """The one question that was asked.

    Raises:
        PellucidError: when there are two, or an option has no meaning beside it.
    """
    asked = [name for name in BESIDE if name in given]
    if len(asked) > 1:
        raise PellucidError(
            _("One question at a time."), " ".join(_option(name) for name in asked), _("Give one of these options.")
        )
    question = asked[0] if asked else ""
    network = question not in ("budget", "list", "hardware")
    known = {"json", question, *BESIDE[question]}
    known |= {"what"} if network or question == "list" else set()
    known |= {"family", *SIZES, "save"} if network else set()
    for name in given:
        if name == "what" and name not in known:
            raise PellucidError(
                _("{option} is not about one network.").format(option=_option(question)),
                given[name],
                _("Leave it out."),
            )
        if name not in known:
            homes = [_option(home) for home, beside in BESIDE.items() if name in beside and home]
            fix = _("It belongs to {names}.").format(names=", ".join(homes)) if homes else _("Leave it out.")
            raise PellucidError(_("{option} has no meaning here.").format(option=_option(name)), "anatomy", fix)
    return question


def _asked(network: Anatomy, question: str, given: dict[str, Any]) -> Any:
    """The answer to a question about a network."""
    from pellucid.anatomy import arguments, questions, reading

    for name in ("length", "depth"):
        arguments.whole(given.get(name, 1), name)
    if question == "explain":
        quantity, part = questions.asked(given["explain"])
        length = given.get("length", network.context)
        return network.explain(part, quantity, **({"token": length} if length else {}))
    if question == "compare":
        return network.compare(reading.read(given["compare"]))
    if question == "what_if":
        return network.compare(network.what_if(**dict(_setting(text) for text in given["what_if"])))
    if question == "train":
        return network.training(**_only(given, *BESIDE["train"]))
    if question == "serve":
        return network.serving(**_only(given, *BESIDE["serve"]))
    return network


def _only(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _network(what: str | None, given: dict[str, Any]) -> Anatomy:
    from pellucid.anatomy import reading

    shape = _only(given, *SIZES)
    if (what is None) == ("family" not in given):
        raise PellucidError(
            _("Name one network: by WHAT, or by --family and its sizes."),
            "anatomy",
            _("`pellucid anatomy gpt2`, for example; --list shows the published ones."),
        )
    if what is None:
        return reading.read_family(given["family"], **shape)
    if shape:
        name = next(iter(shape))
        raise PellucidError(
            _("{option} belongs to --family.").format(option=_option(name)),
            what,
            _("Change a setting of it with --what-if {name}=VALUE.").format(name=name),
        )
    return reading.read(what)


def _setting(text: str) -> tuple[str, Any]:
    """`d_model=512` as a name and a value; words that are no JSON are taken as they are."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise PellucidError(
            _("{text!r} is no setting.").format(text=text), "--what-if", _("Write NAME=VALUE: --what-if d_model=512")
        )
    try:
        return name, json_.loads(value)
    except json_.JSONDecodeError:
        return name, value


def _show(answer: Any, given: dict[str, Any]) -> None:
    if "json" in given:
        print(json_.dumps(answer.json(), ensure_ascii=False, allow_nan=False))
        return
    from pellucid.anatomy.shown.display import show

    show(answer, depth=given.get("depth"), length=given.get("length"))
