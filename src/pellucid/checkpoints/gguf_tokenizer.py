"""Tokenizers in GGUF files: byte-level BPE with its merges, SentencePiece's BPE with its scores."""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from pellucid.checkpoints.gguf_file import Settings
from pellucid.data.tokenizer import Tokenizer, blank
from pellucid.errors import PellucidError
from pellucid.language import _

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
FAMILIES = {"gpt-2": "gpt2", "smollm": "gpt2", "llama-bpe": "llama", "qwen2": "qwen2"}  # whose pattern cuts the text
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>")  # also end an answer, where special
# what other programs do with these does not concern ids or text
HARMLESS = (
    *("seperator_token_id", "padding_token_id", "mask_token_id", "cls_token_id"),
    *("fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id"),
    *("fim_sep_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id"),
    "add_eos_token",  # an end after a text that is to be continued would make no sense
    "token_type_count",
)


def tokenizer_from(settings: Settings) -> tuple[Tokenizer, int | None]:
    """The tokenizer in a file's metadata, and the id of the token that begins a text (or None).

    Raises:
        PellucidError: when it is damaged or of a kind that is not supported.
    """
    tokens = _list(settings, "tokens", str)
    types = _list(settings, "token_type", int, [NORMAL] * len(tokens))
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens):
        raise _damaged(settings, "tokens")
    begin = _id(settings, "bos_token_id", tokens)
    ends = [_id(settings, f"{name}_token_id", tokens) for name in ("eos", "eot", "eom")]
    # some files have the tokens that begin and end a text among the normal ones
    special = {id for id in (begin, *ends) if id is not None}
    special |= {id for id, kind in enumerate(types) if kind in (UNKNOWN, CONTROL, UNUSED)}
    normal = [token for id, token in enumerate(tokens) if types[id] == NORMAL and id not in special]
    kind = settings.get(f"{PREFIX}model", str)
    if kind == "gpt2":
        pre = settings.get(f"{PREFIX}pre", str)
        backend = _byte_level(settings, pre, vocabulary, normal)
        adds = pre == "llama-bpe"
    elif kind == "llama":
        backend = _sentence_piece(settings, vocabulary, normal)
        adds = True
    else:
        settings.refuse(f"{PREFIX}model", _supported())
    backend.add_special_tokens([AddedToken(tokens[id], normalized=False) for id in sorted(special)])
    own = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in own])
    if settings.get(f"{PREFIX}add_bos_token", bool, adds) and begin is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=[tokens[begin], "$A"], special_tokens=[(tokens[begin], begin)]
        )
    settings.ignore(PREFIX + name for name in HARMLESS)
    settings.refuse_others(PREFIX)
    ends += [vocabulary[name] for name in ENDS if vocabulary.get(name) in special]
    found = dict.fromkeys(id for id in ends if id is not None)
    return Tokenizer(
        backend, list(found), {"tokenizer_config.json": _companion(settings, tokens, begin, ends[0])}
    ), begin


def _byte_level(settings: Settings, pre: str, vocabulary: dict[str, int], normal: list[str]) -> tokenizers.Tokenizer:
    if pre not in FAMILIES:
        settings.refuse(f"{PREFIX}pre", _supported())
    settings.only(f"{PREFIX}add_space_prefix", False)
    settings.only(f"{PREFIX}remove_extra_whitespaces", False)
    settings.ignore([f"{PREFIX}scores", f"{PREFIX}unknown_token_id"])  # merges decide, and bytes spell everything
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    if any(not alphabet.issuperset(token) for token in normal):
        raise _damaged(settings, "tokens")
    merges = [tuple(merge.split(" ")) for merge in _list(settings, "merges", str)]
    if any(len(merge) != 2 or not vocabulary.keys() >= {*merge, "".join(merge)} for merge in merges):
        raise _damaged(settings, "merges")
    backend = blank(FAMILIES[pre])
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])
    # Llama 3 takes a piece that is a token as that token, whatever the merges would make of it
    backend.model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe")
    return backend


def _sentence_piece(settings: Settings, vocabulary: dict[str, int], normal: list[str]) -> tokenizers.Tokenizer:
    """SentencePiece's BPE joins the two neighbours whose union has the best score: as merges, best first."""
    settings.only(f"{PREFIX}pre", "default", "llama-spm")
    settings.only(f"{PREFIX}remove_extra_whitespaces", False)
    settings.ignore([f"{PREFIX}merges"])  # scores decide
    scores = _list(settings, "scores", float)
    if len(scores) != len(vocabulary):
        raise _damaged(settings, "scores")
    pieces = set(normal)
    unions = (
        (-scores[vocabulary[token]], vocabulary[token[:cut]], vocabulary[token[cut:]], token[:cut], token[cut:])
        for token in normal
        for cut in range(1, len(token))
        if token[:cut] in pieces and token[cut:] in pieces
    )
    unknown = settings.get(f"{PREFIX}unknown_token_id", int, 0)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(left, right) for *_order, left, right in sorted(unions)],
            unk_token=next((token for token, id in vocabulary.items() if id == unknown), None),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = settings.get(f"{PREFIX}add_space_prefix", bool, True)
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    joined = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*joined, decoders.Strip(" ", 1, 0)] if prefix else joined)
    return backend


def _companion(settings: Settings, tokens: list[str], begin: int | None, end: int | None) -> str:
    """What Hugging Face keeps in tokenizer_config.json."""
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if begin is None else tokens[begin],
        "eos_token": None if end is None else tokens[end],
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    if "tokenizer.chat_template" in settings.values:
        content["chat_template"] = settings.get("tokenizer.chat_template", str)
    return json.dumps(content, indent=2, ensure_ascii=False)


def _list(settings: Settings, name: str, kind: type, default: list[Any] | None = None) -> list[Any]:
    values = settings.get(PREFIX + name, list, default)
    if any(type(value) is not kind for value in values):
        raise _damaged(settings, name)
    return values


def _id(settings: Settings, name: str, tokens: list[str]) -> int | None:
    if PREFIX + name not in settings.values:
        return None
    id = settings.get(PREFIX + name, int)
    if not 0 <= id < len(tokens):
        settings.refuse(PREFIX + name)
    return id


def _supported() -> str:
    return _("Supported are {families}.").format(families=", ".join([*FAMILIES, "llama-spm"]))


def _damaged(settings: Settings, name: str) -> PellucidError:
    return PellucidError(
        _("The file's {name} are damaged.").format(name=PREFIX + name), settings.where, _("Copy or download it again.")
    )
