"""Probes: on an encoder built by hand, whose layers hold and lose what they should, and on real ones."""

import json
import math

import numpy as np
import pytest
import torch

import pellucid as pl
from conftest import CACHE
from pellucid import language
from pellucid.checkpoints.decoder import save_decoder
from pellucid.checkpoints.encoder import open_encoder, save_encoder
from pellucid.cli import app
from pellucid.data.framed import FramedTokenizer
from pellucid.errors import PellucidError
from pellucid.experiments.probes import POSITION, TEXT, TOKEN, WORD, Probes, Score, _right_by_states, _run, _score
from pellucid.networks.decoder import Decoder, DecoderConfig
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig

# which numbers of a state hold what; word and position have mean 0 and one length, so that no norm mixes them
WORDS, POSITIONS, TOPIC, GATHERED = slice(0, 32), slice(32, 64), slice(64, 66), slice(66, 68)
WIDTH, LETTERS = 68, "abcdefghijkl"


@torch.no_grad()
def built() -> Encoder:
    """Layer 1 changes nothing, layer 2 gathers the text's topic in each token, layer 3 forgets the position."""
    network = Encoder(EncoderConfig(259, WIDTH, 3, 1, 2 * WIDTH, 64, activation="relu"))
    for parameter in network.blocks.parameters():
        if parameter.ndim == 2:
            parameter.zero_()
    random = torch.Generator().manual_seed(0)
    half_VD = torch.nn.functional.normalize(torch.randn(259, 16, generator=random), dim=1)
    for table in (network.embedding, network.positions, network.types):
        table.weight.zero_()
    network.embedding.weight[:, WORDS] = torch.cat([half_VD, -half_VD], 1)
    angle_TF = torch.arange(64)[:, None] / 2 ** torch.arange(8)
    half_TD = torch.cat([angle_TF.sin(), angle_TF.cos()], 1) / math.sqrt(8)
    network.positions.weight[:, POSITIONS] = torch.cat([half_TD, -half_TD], 1)
    tokenizer = FramedTokenizer.byte_level()
    for letter, topic in (("a", 1.0), ("b", -1.0)):
        network.embedding.weight[tokenizer.encode(letter)[1], TOPIC] = torch.tensor([topic, -topic])
    gathering, forgetting = network.blocks[1].attention, network.blocks[2].feed_forward
    gathering.qkv.weight[2 * WIDTH :][GATHERED, TOPIC] = 5 * torch.eye(2)  # queries and keys are 0: a mean over tokens
    gathering.output.weight.copy_(torch.eye(WIDTH))
    forgetting.up.weight.copy_(torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]))
    forgetting.down.weight[POSITIONS, :WIDTH] = -torch.eye(WIDTH)[POSITIONS]  # relu(x) - relu(-x) = x
    forgetting.down.weight[POSITIONS, WIDTH:] = torch.eye(WIDTH)[POSITIONS]
    return network


def table(path, rows: int = 240, seed: int = 0) -> str:
    """Texts of letters; one of the first two is in each, and decides the class."""
    random = np.random.default_rng(seed)
    with path.open("w") as file:
        for row in range(rows):
            letters = random.choice(list(LETTERS[2:]), random.integers(15, 24)).tolist()
            for place in random.permutation(len(letters))[:3]:
                letters[place] = LETTERS[row % 2]
            file.write(json.dumps({"said": "".join(letters), "topic": "first" if row % 2 == 0 else "second"}) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("built")
    save_encoder(built(), path)
    FramedTokenizer.byte_level().save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return table(tmp_path_factory.mktemp("data") / "texts.jsonl")


@pytest.fixture(scope="module")
def found(folder, data) -> Probes:
    return pl.probe(folder, data, "topic", positions=12, seeds=3)


def accuracies(found: Probes, question: str) -> list[float]:
    return [scores[question].accuracy for scores in found.layers.values()]


def test_a_layer_that_loses_positions_is_seen(found):
    assert min(accuracies(found, POSITION)[:3]) > 0.8
    assert accuracies(found, POSITION)[3] < 0.15  # of 12: chance is 0.08
    assert min(accuracies(found, WORD)) > 0.99
    assert "fades from layer 0 to layer 3" in found.summary()[1]


def test_a_layer_that_gathers_the_topic_is_seen(found):
    before, after = accuracies(found, TOKEN)[:2], accuracies(found, TOKEN)[2:]
    assert max(before) < 0.75  # a token in seven tells the class
    assert min(after) > 0.97
    assert min(accuracies(found, TEXT)) > 0.97  # the mean over the embeddings holds it already
    assert found.tokens_alone[TEXT].accuracy > 0.97
    assert abs(found.tokens_alone[TOKEN].accuracy - accuracies(found, TOKEN)[0]) < 0.05
    assert "grows" in found.summary()[2]
    assert "level" in found.summary()[3]


def test_shuffled_labels_give_chance(found):
    for question, tolerance in ((WORD, 0.06), (POSITION, 0.04), (TOKEN, 0.15)):
        assert abs(found.shuffled(question).accuracy - found.chance[question]) < tolerance
    # where two clusters of texts are all there is, shuffled labels fall on the one or the other: right or wrong of all
    for scores in found.layers.values():
        assert scores[TEXT].control < 0.8
        assert len(scores[TEXT].controls) == 3


def test_states_that_hold_nothing_give_chance():
    random = np.random.default_rng(0)
    state_ND, class_N = random.standard_normal((400, 20)).astype(np.float32), random.integers(0, 4, 400)
    parts = [np.split(random.permutation(400), [280]) for _split in range(10)]
    score = _score(state_ND, class_N, parts, _right_by_states, controlled=True)
    assert abs(score.accuracy - 0.25) < 0.05
    assert abs(score.control - 0.25) < 0.05
    held = _score(np.eye(4, dtype=np.float32)[class_N], class_N, parts, _right_by_states, controlled=True)
    assert held.accuracy == 1
    assert held.control < 0.5


def test_what_was_asked_is_told(found):
    assert sorted(found.words) == list(LETTERS)
    assert (found.positions, found.classes, found.texts) == (12, ["first", "second"], 240)
    told = json.loads(json.dumps(found.json()))
    assert told["layers"]["3"]["word"]["accuracy"] == found.layers[3][WORD].accuracy
    assert told["summary"] == found.summary()


def test_the_same_again(folder, data, found):
    again = pl.probe(str(folder), data, "topic", "said", positions=12, seeds=3, layers=[3, 0])
    assert again.layers == {layer: found.layers[layer] for layer in (0, 3)}


def test_spread_and_change_are_those_of_numpy():
    first, last = Score((0.5, 0.6, 0.7), (0.1, 0.1, 0.4)), Score((0.6, 0.6, 0.9))
    every = dict.fromkeys((POSITION, TOKEN, TEXT), first)
    probes = Probes({0: {WORD: first} | every, 5: {WORD: last} | every}, {}, {}, [], 0, [], 0)
    assert first.accuracy == pytest.approx(0.6)
    assert first.control == pytest.approx(0.2)
    assert first.spread == pytest.approx(np.std([0.5, 0.6, 0.7], ddof=1))
    assert probes.change(WORD) == pytest.approx((0.1, np.std([0.1, 0, 0.2], ddof=1)))
    assert probes.best(WORD) == 5
    assert probes.best(TEXT) == 0
    assert "about level" in probes.summary()[0]  # 0.1 is no more than twice the spread


def test_padding_and_company_change_nothing(folder):
    """A sentence beside longer ones has the states that it has alone."""
    network, tokenizer = open_encoder(folder), FramedTokenizer.open(folder)
    passages = [tokenizer.encode(said) for said in ("abc", "defghijkl", "la")]
    with torch.no_grad():
        ((texts, states),) = _run(network, passages)
        for row, text in enumerate(texts):
            alone = network.hidden_states(torch.tensor([passages[text]]))
            for layer, whole in enumerate(states):
                assert torch.allclose(whole[row, : len(passages[text])], alone[layer][0], atol=1e-5)


def test_a_classifier_is_probed_below_its_head(tmp_path, data):
    for pooling in ("first", "mean"):
        path = tmp_path / pooling
        save_encoder(Classifier(EncoderConfig(259, 8, 1, 2, 16, 64, classes=2, pooling=pooling)), path)
        FramedTokenizer.byte_level().save(path)
        assert list(pl.probe(path, data, "topic", words=2, positions=2, seeds=2).layers) == [0, 1]


def test_a_sentence_layer_by_layer(folder):
    seen = pl.sentence_by_layer(folder, "cac", ["cdd", "ccb"])
    assert seen.tokens == ["c:1", "a", "c:3"]
    assert sorted(seen.similarity) == [0, 1, 2, 3]
    for of_TT in seen.similarity.values():
        assert np.allclose(np.diag(of_TT), 1, atol=1e-5)
        assert np.allclose(of_TT, of_TT.T, atol=1e-6)
    assert seen.nearest[0][0] == ("c(1)", pytest.approx(1, abs=1e-5))  # the same letter at the same place
    assert seen.similarity[3][0, 2] == pytest.approx(1, abs=1e-5)  # the same letter at any place
    assert seen.similarity[0][0, 2] < 0.9
    # by hand from the encoder itself
    states = built().hidden_states(torch.tensor([FramedTokenizer.byte_level().encode("cac")]))[2][0, 1:-1].detach()
    other = built().hidden_states(torch.tensor([FramedTokenizer.byte_level().encode("ccb")]))[2][0, 1:-1].detach()
    assert seen.alike[2][1] == pytest.approx(
        torch.nn.functional.cosine_similarity(states.mean(0), other.mean(0), dim=0).item(), abs=1e-5
    )
    assert json.loads(json.dumps(seen.json()))["tokens"] == seen.tokens


# The command


def run(*arguments) -> int:
    return app.run([str(argument) for argument in ("probe", *arguments)])


def test_the_command_prints_and_draws(folder, data, tmp_path, capsys):
    picture = tmp_path / "layers.png"
    options = ("--data", data, "--target", "topic", "--text", "said", "--seeds", 2, "--layers", "0,3", "--words", 4)
    assert run(folder, *options, "--save", picture) == 0
    printed = capsys.readouterr()
    assert "shuffled labels" in printed.out
    assert len([line for line in printed.out.splitlines() if line.startswith(("0 ", "3 "))]) == 2
    assert str(picture) in printed.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(folder, *options, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["layers"]) == ["0", "3"]


def test_the_command_looks_at_a_sentence(folder, tmp_path, capsys):
    picture = tmp_path / "sentence.svg"
    assert run(folder, "--sentence", "abcab", "--against", "abd", "--against", "kkk", "--save", picture) == 0
    printed = capsys.readouterr().out
    assert "(2) kkk" in printed
    assert "a:4" in printed
    assert "<svg" in picture.read_text("utf-8")


@pytest.fixture
def english_again():
    yield
    language.use("en")


@pytest.mark.usefixtures("english_again")
def test_the_command_speaks_chinese(folder, capsys):
    assert run("--language", "zh", folder, "--sentence", "猫坐", "--layers", "0，3") == 0
    assert "第 3 层" in capsys.readouterr().out


def test_what_cannot_be_probed_is_said_once(folder, data, tmp_path, capsys):
    decoder = tmp_path / "decoder"
    save_decoder(Decoder(DecoderConfig("llama", 259, 8, 1, 2, 2, 4, 16, context=16)), decoder)
    few = table(tmp_path / "few.jsonl", 40)
    short = tmp_path / "short.jsonl"
    lines = ({"said": f"{row} !", "topic": "odd" if row % 2 else "even"} for row in range(100))
    short.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ("--data", data, "--target", "topic")
    for arguments, said in (
        ((decoder, *asked), "no encoder"),
        ((data, *asked), "no encoder"),
        ((tmp_path / "nothing", *asked), "config.json"),
        ((folder, "--data", few, "--target", "topic"), "too few texts"),
        ((folder, "--data", short, "--target", "topic"), "too short"),
        ((folder, "--data", data, "--target", "colour"), "colour"),
        ((folder, *asked, "--text", "written"), "written"),
        ((folder, "--data", data), "--target"),
        ((folder,), "--sentence"),
        ((folder, *asked, "--sentence", "ab"), "one of them"),
        ((folder, *asked, "--layers", "4"), "0 to 3"),
        ((folder, *asked, "--layers", "all"), "'all'"),
        ((folder, *asked, "--seeds", "1"), "--seeds"),
        ((folder, *asked, "--save", tmp_path / "picture.jpg"), ".png"),
        ((folder, *asked, "--save", tmp_path / "nowhere" / "a.png"), "nowhere"),
        ((folder, "--sentence", "a"), "1 token"),
        ((folder, "--sentence", "a" * 63), "63 tokens"),
        ((folder, "--sentence", "abc", "--against", ""), "0 tokens"),
    ):
        assert run(*arguments) == 2, arguments
        printed = capsys.readouterr()
        assert said in printed.err, (arguments, printed.err)
        assert len(printed.err.splitlines()) <= 3
        assert not printed.out
    assert not list(tmp_path.glob("*.jpg"))


def test_a_mistake_raises_before_anything_is_read(folder):
    with pytest.raises(PellucidError, match="words"):
        pl.probe(folder, "no such file", "topic", words=1)


# Real ones


@pytest.mark.slow
def test_minilm_forgets_places_and_gathers_what_a_text_is_about():
    if not (CACHE / "minilm").is_dir():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    found = pl.probe(CACHE / "minilm", CACHE / "spam.jsonl", "label", texts=500, seeds=3, layers=[0, 3, 6])
    assert accuracies(found, WORD)[0] > 0.99
    assert accuracies(found, POSITION)[0] > 0.7
    assert accuracies(found, POSITION)[2] < 0.25
    assert accuracies(found, TOKEN)[2] > accuracies(found, TOKEN)[0] + 0.03
    assert min(accuracies(found, TEXT)) > found.chance[TEXT] + 0.1
    seen = pl.sentence_by_layer(
        CACHE / "minilm", "the cat sat on the mat", ["A kitten lay on the rug.", "Stock prices fell on Monday."]
    )
    assert seen.nearest[6][1][0] == "kitten(1)"
    assert seen.alike[6][0] > 0.6
    assert seen.alike[6][1] < 0.15
    assert seen.alike[0][1] > 0.2  # the embeddings alone find them more alike
