"""What is printed of an anatomy: its figures are the counts', and it fits into 80 columns in both languages."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pellucid import language
from pellucid.anatomy import catalogue, counts, families, questions
from pellucid.anatomy.report import Anatomy
from pellucid.anatomy.shown.display import published, show
from pellucid.anatomy.shown.formula_display import Sum, where
from pellucid.anatomy.shown.tree_display import branch, flow
from pellucid.anatomy.shown.words import cut, share, short
from pellucid.anatomy.tree import Linear, Part, Sequence

SHOWN = (
    "playground", "lenet-5", "resnet-152", "inception-v3", "densenet-121", "vit-b-16", "gpt2", "gpt3", "mixtral-8x7b",
    "deepseek-v3", "albert-base-v2", "t5-small", "whisper-large-v3", "gemma-3-27b", "mamba-130m",
)  # fmt: skip


@pytest.fixture(params=["en", "zh"])
def spoken(request):
    language.use(request.param)
    yield request.param
    language.use("en")


def network(name, context=None):
    entry = catalogue.find(name)
    return Anatomy(name, families.describe(entry.config, name), entry.config, "", entry, context)


def printed(answer, **options):
    page = io.StringIO()
    show(answer, Console(file=page, width=80, highlight=False), **options)
    return page.getvalue()


def numbers(line):
    return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", line)]


@pytest.mark.parametrize("name", SHOWN)
def test_eighty_columns_hold_it(name, spoken):
    text = printed(network(name, context=512))
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "\x1b" not in text  # a pipe gets no colours


@pytest.mark.parametrize("name", SHOWN)
def test_kinds_are_the_counts(name):
    anatomy = network(name)
    text = printed(anatomy)
    assert f"{anatomy.parameters.total:,} parameters" in text
    table = text[text.index("kind ") : text.index("in all ")]
    for kind, n in anatomy.parameters.by_kind.items():
        if n:
            row = next(line for line in table.splitlines() if line.startswith(f"{kind} "))
            assert n in numbers(row)
            assert (anatomy.neurons.by_kind[kind] or n) in numbers(row)


@pytest.mark.parametrize("name", SHOWN)
def test_every_line_of_the_tree_is_the_sum_of_those_below(name):
    tree = network(name).tree
    root = branch("", tree)
    assert (root.parameters, root.neurons) == (counts.parameters(tree).total, counts.neurons(tree).total)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.children:
            assert node.parameters == sum(child.parameters for child in node.children)
            assert node.neurons == sum(child.neurons for child in node.children)
            assert node.layers == sum(child.layers for child in node.children)
        waiting += node.children


def test_gpt3():
    text = printed(network("gpt3", context=2048))
    assert "174,604,259,328 parameters (174.6 B), 10,667,089 neurons" in text
    assert "published: 175.0B (Brown et al. 2020, table 2.1); the count is -0.2%" in text
    assert "├ blocks × 96" in text
    assert re.search(r"up +12288 → 49152 +57,986,777,088 +4,718,592 token × 49152", text)
    assert "49152 × (12288 + 1) =\n604,028,928 parameters" in text.replace(" \n", "\n")
    assert re.search(r"head +tied +50,257", text)
    assert re.search(r"training step +1.107 P +2.214 P +6N +2.145 P +-3.1%", text)
    assert "keys and values of a token in bf16           4.72 MB (4.50 MiB)" in text
    assert "Folded" not in text


def test_compute_is_for_the_length_that_is_asked():
    anatomy = network("gpt2", context=1024)
    assert "for a text of 1,024 tokens" in printed(anatomy)
    text = printed(anatomy, length=1)
    assert "for one token" in text
    assert short(2 * anatomy.forward(token=1).total, "G") in text


def test_a_network_for_pictures_has_no_rule_for_texts():
    text = printed(network("lenet-5"))
    assert "6N" not in text
    assert "token" not in text
    assert "16 × 10 × 10 = 1,600" in text  # neurons of a convolution
    assert "with each feature map" in text


def test_a_mixture_says_what_is_active():
    text = printed(network("mixtral-8x7b"))
    assert "active: 12,879,925,248 (27.6 %)" in text
    assert "experts × 2 of 8" in text


def test_deep_networks_are_folded_and_unfold():
    anatomy = network("resnet-152")
    text, whole = printed(anatomy), printed(anatomy, depth=9)
    assert len(text.splitlines()) < 60
    assert "--depth 3 shows all" in text
    assert len(whole.splitlines()) > 100
    assert "Folded" not in whole
    assert re.search(r"activation +relu +64 × 112 × 112", whole)  # the shape that it reads


def test_many_layers_called_alike_are_one_line():
    text = printed(network("densenet-121"))
    assert re.search(r"├ dense3 +144 layers +2,837,760 ", text)
    assert re.search(r"dense3\[23\] ", printed(network("densenet-121"), depth=3))


def test_published_totals_stand_beside_the_count():
    assert published(network("lenet-5")).endswith("section 7.6); the count is the same")
    assert published(network("resnet-50")).endswith("; exactly 25,557,032, and so is the count")
    assert "rounds to it" in published(network("deepseek-v3"))


def test_notes_of_the_catalogue_are_in_the_users_language(spoken):
    said = {"en": "outputs of layers with weights are 15,230", "zh": "带权重的层的输出是 15,230 个"}[spoken]
    for text in (printed(network("lenet-mnist")), printed(questions.models("lenet"))):
        assert "".join(said.split()) in "".join(text.split())


def test_no_figure_needs_a_context_or_parameters():
    text = printed(Anatomy("nothing", Sequence(())))
    assert "0 parameters" in text
    one = printed(Anatomy("one", Sequence((Part("layer", Linear(2, 3), "dense"),))))
    assert "layer, 2 → 3: 3 neurons, 3 × (2 + 1) = 9" in one


def test_linear_layers_one_after_another_are_pointed_out():
    tree = Sequence((Part("a", Linear(5, 7), "dense"), Part("b", Linear(7, 3), "dense")))
    assert "equal to one linear layer" in printed(Anatomy("stack", tree)).replace("\n", " ")


def test_names_are_no_markup():
    tree = Sequence((Part("[red]x[/red]", Linear(2, 2), "dense"), Part("[/]", Linear(2, 1), "head")))
    anatomy = Anatomy("[bold]", tree, notes=("[/b]",))
    for answer in (anatomy, anatomy.explain(), anatomy.compare(anatomy)):
        printed(answer)
    assert "├ [red]x[/red]" in printed(anatomy)


def test_formula_of_gpt3s_feed_forward():
    text = printed(network("gpt3").explain("feed-forward"))
    assert text.startswith("parameters of feed-forward: 115,970,015,232\n")
    assert "12288 × 49152 + 49152 + 49152 × 12288 + 12288 = 1,208,020,992\n" in text
    assert "96 × 1,208,020,992 = 115,970,015,232" in text
    rows = [line for line in text.splitlines() if line.startswith("blocks.*")]
    assert sum(numbers(row)[-1] for row in rows) == 1_208_020_992


@pytest.mark.parametrize(
    ("name", "part", "quantity"),
    [
        ("gpt3", "", "parameters"), ("gpt3", "", "multiply-adds"), ("gemma-3-27b", "", "neurons"),
        ("resnet-152", "", "parameters"), ("deepseek-v3", "attention", "parameters"), ("lenet-5", "norm", "parameters"),
    ],
)  # fmt: skip
def test_formulas_fit_and_add_up(name, part, quantity, spoken):
    anatomy = network(name)
    if (name, part) == ("lenet-5", "norm"):
        part = "layers.0.pool"
    formula = anatomy.explain(part, quantity, token=128)
    text = printed(formula)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert f"{formula.total:,}" in text.splitlines()[0]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=30), st.integers(24, 100))
def test_sums_break_between_terms_only(terms, width):
    page = io.StringIO()
    after = f"= {sum(terms)}"
    Console(file=page, width=width).print(Sum([f"{term} × 1" for term in terms], after))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(" ".join(lines).split()) == " + ".join(f"{term} × 1" for term in terms) + f" {after}"


def test_comparisons_add_up(spoken):
    comparison = network("gpt2").compare(network("gpt3"))
    text = printed(comparison)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "+174,479,819,520" in text
    assert sum(row.difference for row in comparison.kinds) == 174_479_819_520
    setting = [line for line in text.splitlines() if line.startswith("n_layer")]
    assert "174,604,259,328" in setting[0]  # the last setting arrives at the other network


def test_a_comparison_says_where_the_difference_lies():
    assert "most of the difference lies in feed-forward: -59,598,569,472" in where(
        network("gpt3").compare(network("llama-2-70b"))
    )
    assert "same parameters" in where(network("gpt3").compare(network("gpt3")))


def test_figures():
    assert [short(n) for n in (0, 9999, 12346, 174604259328, 999999, 1e15)] == [
        "0", "9,999", "12.35 k", "174.6 B", "1 M", "1 P",
    ]  # fmt: skip
    assert short(2.5e9, "G") == "2.5 G"
    assert short(2e12) == "2 T"
    assert [short(n) for n in (1e4, 123.4e18, 3.14e23)] == ["10 k", "123.4 E", "3.14e+23"]
    assert [share(*pair) for pair in ((1, 3), (1, 10**6), (0, 0), (1, 200))] == ["33.3 %", "< 0.01 %", "–", "0.50 %"]
    assert flow((20, 24, 24)) == "20 × 24 × 24"
    assert flow((12288,), "token") == "token × 12288"
    assert cut("a.blocks[0:5,6:11,12:17].*.up") == "a.blocks[0:5,…].*.up"
    assert cut("blocks[3:61]") == "blocks[3:61]"


def test_where_nothing_was_published_the_source_still_stands():
    text = printed(network("opus-mt-en-de"))
    assert f"configuration: {catalogue.find('opus-mt-en-de').source}" in text
    assert "published: " not in text
