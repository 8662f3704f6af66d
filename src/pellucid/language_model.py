"""A model: a network and what is needed to use it, with the verbs as methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pellucid.anatomy.weights import Weights
from pellucid.checkpoints.decoder import open_decoder
from pellucid.checkpoints.files import read_json
from pellucid.checkpoints.gguf import open_gguf
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.chat import render
from pellucid.generation.decode import Token, generate
from pellucid.generation.healing import probability_of
from pellucid.generation.int8 import int8
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import Sampling
from pellucid.generation.score import Evaluation, ScoredToken, score
from pellucid.language import _
from pellucid.networks.decoder import Decoder
from pellucid.networks.device import device as find_device

if TYPE_CHECKING:  # the tracing room is loaded by who asks why: writing starts without it
    from pellucid.tracing.answers import Answer
    from pellucid.tracing.asking import TokenByToken
    from pellucid.tracing.lenses import ActivatingText
    from pellucid.tracing.text import TextTrace

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class LanguageModel:
    """A language model, trained here or by others: what `open` and `train` return."""

    network: Decoder
    tokenizer: Tokenizer
    folder: Path | None = None
    task: str = "text"
    start_id: int | None = None  # stands before a text that begins with nothing: the end of an imagined one before
    quick: Decoder | None = field(default=None, repr=False)  # the int8 copy that reads single tokens

    def __post_init__(self) -> None:
        if self.start_id is None:
            self.start_id = self.tokenizer.end_id

    @classmethod
    def open(
        cls, folder: str | Path, device: str = "cpu", precision: str = "fp32", quantise: bool = False
    ) -> LanguageModel:
        """Open a run, any folder of a decoder that `transformers` wrote, or a .gguf file.

        Args:
            folder: Holds config.json, model.safetensors and tokenizer.json; or the path of a .gguf file.
            device: "cpu", "cuda" or "mps".
            precision: Of weights and arithmetic, "fp32" or "bf16".
            quantise: Read single tokens with an int8 copy of the weights (on a CPU): see `generation.int8`.

        Raises:
            PellucidError: when a file is missing, damaged, or asks for what is not supported.
        """
        folder = Path(folder)
        if precision not in PRECISIONS:
            raise PellucidError(
                _("There is no precision {name!r}.").format(name=precision), "--precision", _("Use fp32 or bf16.")
            )
        device = find_device(device)
        if quantise and device != "cpu":
            raise PellucidError(_("int8 weights are for CPUs."), "--int8", _("Leave --int8 out, or use --device cpu."))
        if not folder.exists():
            raise PellucidError(
                _("There is no model here."), str(folder), _("Train one first: pellucid train SOURCE --out RUN.")
            )
        own: dict[str, Any] = {}
        if folder.is_dir():
            config = read_json(folder / "config.json")
            tokenizer, network = Tokenizer.open(folder), open_decoder(folder, PRECISIONS[precision])
            own = config.get("pellucid") or {}
            begin = own.get("start_id", config.get("bos_token_id"))
        else:
            network, tokenizer, begin = open_gguf(folder, PRECISIONS[precision])
        network = network.to(device).eval().requires_grad_(False)
        return cls(
            network,
            tokenizer,
            folder,
            own.get("task", "text"),
            begin if isinstance(begin, int) and begin < network.config.vocab_size else None,
            int8(network) if quantise else None,
        )

    def generate(
        self,
        prompt: str = "",
        *,
        sampling: Sampling | None = None,
        max_tokens: int = 256,
        stop: str | Sequence[str] = (),
        samples: int = 1,
        heal: bool = True,
        unprompted: bool = False,
        alternatives: int = 5,
        **how: Any,
    ) -> Iterator[Token]:
        """Continue `prompt`, token by token: see `generation.decode.generate`.

        Args:
            prompt: The text to continue.
            sampling: How to draw each token; None: the defaults of `Sampling`.
            max_tokens: Most tokens to write in each sample.
            stop: Strings at which to stop.
            samples: How many texts to write, one after the other.
            heal: Take the prompt's last tokens back, and admit what begins with the same bytes.
            unprompted: Admit an empty prompt: write a document from its start.
            alternatives: How many alternatives each token brings along.
            how: Single fields of `Sampling`, such as ``temperature=0.5, seed=3``.

        Raises:
            PellucidError: when an argument makes no sense or the prompt is empty.
        """
        return self._continue(
            [*self.tokenizer.prefix, *self.tokenizer.encode(prompt)],
            replace(sampling or Sampling(), **how),
            max_tokens=max_tokens,
            stop=stop,
            samples=samples,
            heal=heal,
            unprompted=unprompted,
            alternatives=alternatives,
        )

    def weights(self) -> Weights:
        """Every parameter by its name."""
        return Weights.of(self.network)

    @property
    def chats(self) -> bool:
        """Whether this model has learned to chat. A base model has not: it continues whatever text it is given."""
        return self.tokenizer.chat_template is not None

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        sampling: Sampling | None = None,
        max_tokens: int = 1024,
        stop: str | Sequence[str] = (),
        alternatives: int = 5,
        **how: Any,
    ) -> Iterator[Token]:
        """Answer the last of `messages`, each ``{"role": "user" | "assistant" | "system", "content": ...}``.

        A base model knows no roles (`chats` is False): it continues the contents of the messages, joined.

        Raises:
            PellucidError: when an argument makes no sense, or the model's chat template refuses the messages.
        """
        if self.tokenizer.chat_template is None:
            text = "".join(message["content"] for message in messages)
            ids = [*self.tokenizer.prefix, *self.tokenizer.encode(text)]
        else:
            text = render(self.tokenizer.chat_template, messages, self.tokenizer.special_names, self.folder)
            ids = self.tokenizer.encode(text, allow_special=True)
        return self._continue(
            ids,
            replace(sampling or Sampling(), **how),
            max_tokens=max_tokens,
            stop=stop,
            heal=not self.chats,
            alternatives=alternatives,
        )

    def probability(self, prompt: str, continuation: str) -> float:
        """The probability that the text goes on with `continuation` after `prompt`, wherever tokens begin and end.

        See `generation.healing.probability_of`.
        """
        if not continuation:
            return 1.0
        tokenizer = self.tokenizer
        reader = Reader(self.network, len(tokenizer.encode(prompt + continuation)) + 64, quick=self.quick)
        return probability_of(
            reader, tokenizer, prompt, continuation, self.start_id, tokenizer.end_ids, tokenizer.prefix
        )

    def evaluate(self, text: str | Sequence[str], *, tokens: bool = False, context: int | None = None) -> Evaluation:
        """How well the model predicts `text`: loss, perplexity, bits per byte; with `tokens` each token's probability.

        A text is taken for a part of a document. Of a list of documents the model has to foresee the ends as well; what
        that costs is charged to the bytes like everything else.

        Raises:
            PellucidError: when there is nothing to predict.
        """
        ids = self._ids(text)
        nats = score(self.network, ids, self._before(), context)
        predicted = ids[len(ids) - len(nats) :]
        size = sum(len(self.tokenizer.token_bytes(id)) for id in predicted)
        if not size:
            raise PellucidError(_("There is no text to evaluate."), "", _("Give a text of at least one character."))
        scored = zip(predicted, (-nats).exp().tolist(), strict=True) if tokens else ()
        return Evaluation(
            nats.double().sum().item(),
            len(nats),
            size,
            tuple(ScoredToken(id, self.tokenizer.show(id), self.tokenizer.token_bytes(id), p) for id, p in scored),
        )

    def trace(self, text: str, *, budget: float | None = None) -> TextTrace:
        """Read `text` once and record every operation: any number can then be asked why. See `tracing`.

        Args:
            text: What the model reads; its last position says what comes next.
            budget: Bytes that the recording may take; None: half of the free memory.

        Raises:
            PellucidError: when the text is empty or longer than the context, or the recording exceeds the budget.
        """
        ids = [*self.tokenizer.prefix, *self.tokenizer.encode(text)]
        if not ids:
            raise PellucidError(_("The prompt is empty."), "", _("Give a text of at least one character."))
        return self._trace(ids, budget)

    def why(
        self,
        prompt: str,
        *,
        next_token: str | int | None = None,
        rather_than: str | int | None = None,
        about: str = "choice",
        convention: str = "values",
        budget: float | None = None,
    ) -> Answer | TokenByToken:
        """Why this goes on after `prompt` rather than that: the parts that add up to the difference of their logits.

        Args:
            prompt: What the model reads.
            next_token: A token, as text or id; None: the most probable one. A string of several tokens is asked about
                token by token: its probability is the product of theirs.
            rather_than: What to compare it with; None: the most probable token besides.
            about: "choice", or instead of the difference: "logit", "log-probability", "probability" (which is no sum),
                "loss" (of the prompt's own tokens), or the address of any number: see `tracing.addresses`.
            convention: Who gets the credit for a product: see `Trace.why`.
            budget: Bytes that the recording may take; None: half of the free memory.

        Raises:
            PellucidError: when the prompt is empty or longer than the context, or there is no such token or number.
        """
        from pellucid.tracing.asking import ask

        if not prompt:
            raise PellucidError(_("The prompt is empty."), "", _("Give a text of at least one character."))
        ids = [*self.tokenizer.prefix, *self.tokenizer.encode(prompt)]
        return ask(
            lambda read: self._trace(read, budget),
            self.tokenizer,
            ids,
            next_token,
            rather_than,
            about,
            convention,
            self.folder.name if self.folder else "",
        )

    def top_texts(self, texts: Iterable[str], layer: int, neuron: int, k: int = 10) -> list[ActivatingText]:
        """The texts of a corpus that activate a neuron most, best first: see `tracing.lenses.top_texts`."""
        from pellucid.tracing.lenses import top_texts

        return top_texts(self, texts, layer, neuron, k)

    def int8_cost(self, text: str) -> Int8Cost:
        """What int8 weights change in predicting `text`.

        Raises:
            PellucidError: when there is nothing to predict.
        """
        exact = self.evaluate(text)
        ids = self._ids(text)
        exact_T = score(self.network, ids, self._before())
        change_T = (score(self.quick or int8(self.network), ids, self._before()) - exact_T).double()
        more = change_T.sum().item() / math.log(2) / exact.bytes
        return Int8Cost(len(change_T), change_T.abs().mean().item(), exact.bits_per_byte, exact.bits_per_byte + more)

    def _trace(self, ids: list[int], budget: float | None = None) -> TextTrace:
        from pellucid.tracing.text import TextTrace
        from pellucid.tracing.trace import trace

        context = self.network.config.context
        if len(ids) > context:
            raise PellucidError(
                _("The text has {n:,} tokens, and the model sees {context:,}.").format(n=len(ids), context=context),
                "",
                _("Give a shorter one."),
            )
        device = self.network.embedding.weight.device
        recorded = trace(self.network, torch.tensor([ids], device=device), budget=budget)
        return TextTrace(recorded.tape, self.tokenizer)

    def _continue(self, ids: list[int], sampling: Sampling, **limits: Any) -> Iterator[Token]:
        return generate(
            self.network,
            self.tokenizer,
            ids,
            sampling,
            end_ids=self.tokenizer.end_ids,
            start_id=self.start_id,
            fixed=len(self.tokenizer.prefix),
            quick=self.quick,
            **limits,
        )

    def _ids(self, text: str | Sequence[str]) -> list[int]:
        return (
            self.tokenizer.encode(text)
            if isinstance(text, str)
            else self.tokenizer.encode_documents(list(text)).tolist()
        )

    def _before(self) -> int | None:
        """What stands before a text to be scored."""
        return self.tokenizer.prefix[0] if self.tokenizer.prefix else self.start_id


@dataclass(frozen=True)
class Int8Cost:
    """What int8 weights change in predicting a text."""

    tokens: int  # predicted
    log_probability_change: float  # mean |Δ ln p| over the tokens
    bits_per_byte: float  # with the weights as they are
    int8_bits_per_byte: float
