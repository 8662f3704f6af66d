"""Translating word by word: what a dictionary learned from the pairs can do, for comparison with a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 5
ENOUGH = 4_000_000  # words beside words to learn from: a hundred bytes each
# characters that are words of their own, words with what an apostrophe joins, punctuation
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])\w)+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Dictionary:
    """The most probable translation of each word, whatever stands around it."""

    entries: dict[str, str]

    def translate(self, text: str) -> str:
        """Each word's translation in the order of the source; a word that was never seen stays as it is."""
        return " ".join(self.entries.get(word) or self.entries.get(word.lower(), word) for word in words(text))


def words(text: str) -> list[str]:
    """The words of a text, and its punctuation; where writing has no spaces, its characters."""
    return _WORD.findall(text)


def learn(sources: Sequence[str], targets: Sequence[str]) -> Dictionary:
    """The dictionary of Brown et al. 1993, "The mathematics of statistical machine translation", model 1.

    Each word of a target is taken to come from one word of its source, whichever, and how probable each translation
    is is what makes the targets most probable (expectation maximisation). Of long data, pairs at even distances.
    """
    rows = _evenly(sources, targets)
    source_ids, target_ids = {}, {}  # type: dict[str, int], dict[str, int]
    s_parts, t_parts, place_parts, place = [], [], [], 0
    for row in rows:
        s_S = np.array([source_ids.setdefault(word, len(source_ids)) for word in words(sources[row])], np.int64)
        t_T = np.array([target_ids.setdefault(word, len(target_ids)) for word in words(targets[row])], np.int64)
        s_parts.append(np.tile(s_S, len(t_T)))
        t_parts.append(np.repeat(t_T, len(s_S)))
        place_parts.append(np.repeat(np.arange(place, place + len(t_T)), len(s_S)))
        place += len(t_T)
    if not source_ids or not target_ids:
        return Dictionary({})
    place_N = np.concatenate(place_parts)
    key_N = np.concatenate(s_parts) * len(target_ids) + np.concatenate(t_parts)
    keys_K, key_of_N = np.unique(key_N, return_inverse=True)
    source_of_K = keys_K // len(target_ids)
    p_K = np.ones(len(keys_K))
    for _round in range(ROUNDS):
        p_N = p_K[key_of_N]
        share_N = p_N / np.bincount(place_N, p_N)[place_N]
        count_K = np.bincount(key_of_N, share_N, len(keys_K))
        p_K = count_K / np.bincount(source_of_K, count_K)[source_of_K]
    order = np.lexsort((p_K, source_of_K))
    best = order[np.append(np.flatnonzero(np.diff(source_of_K[order])), len(order) - 1)]  # the last of each source word
    names_s, names_t = list(source_ids), list(target_ids)
    return Dictionary({names_s[keys_K[k] // len(target_ids)]: names_t[keys_K[k] % len(target_ids)] for k in best})


def _evenly(sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Pairs at even distances with about `ENOUGH` words beside words, guessed from the lengths of some."""
    some = np.unique(np.linspace(0, len(sources) - 1, min(len(sources), 200)).round().astype(int))
    size = float(np.mean([len(words(sources[row])) * len(words(targets[row])) for row in some]))
    wanted = max(1, min(len(sources), int(ENOUGH / max(1.0, size))))
    return np.unique(np.linspace(0, len(sources) - 1, wanted).round().astype(int))
