"""Every message has its Chinese, and the compiled catalogue is the one that is read."""

import gettext

import pytest

import messages
from pellucid import language
from pellucid.errors import PellucidError


def test_every_message_has_chinese_with_the_same_fields():
    assert messages.problems() == []


def test_the_check_sees_what_it_should(tmp_path, monkeypatch):
    source = tmp_path / "pellucid"
    source.mkdir()
    (source / "a.py").write_text('_("{n} steps")\n_("new")\n_(name)\n_(f"{n}")\n', "utf-8")
    po = tmp_path / "pellucid.po"
    po.write_text('msgid "{n} steps"\nmsgstr "{m} 步"\n\nmsgid "old"\nmsgstr "旧"\n', "utf-8")
    monkeypatch.setattr(messages, "SOURCE", source)
    monkeypatch.setattr(messages, "PO", po)
    monkeypatch.setattr(messages, "MO", po.with_suffix(".mo"))
    found = "\n".join(messages.problems())
    assert "not a plain string: _(name)" in found
    assert "not a plain string: _(f'{n}')" in found
    assert "no Chinese: 'new'" in found
    assert "other {fields} in the Chinese of '{n} steps'" in found
    assert "no longer in the source: 'old'" in found
    assert "pellucid.mo is not what pellucid.po says" in found


def test_notes_of_the_catalogue_of_models_are_messages(tmp_path, monkeypatch):
    table = tmp_path / "anatomy" / "catalogue" / "vision.toml"
    table.parent.mkdir(parents=True)
    table.write_text(
        '[one]\nnote = "the paper rounds"\nsource = "a paper"\n'
        '[two]\nstatus = "rumour"\nsource = "nobody has confirmed it"\n',
        "utf-8",
    )
    monkeypatch.setattr(messages, "SOURCE", tmp_path)
    assert list(messages.messages()) == ["the paper rounds", "nobody has confirmed it"]


def test_update_merges_parts_drops_what_is_gone_and_compiles(tmp_path, monkeypatch):
    source = tmp_path / "pellucid"
    source.mkdir()
    (source / "a.py").write_text('_("{n} steps")\n_("two words that " "belong together")\n', "utf-8")
    po, part = tmp_path / "zh" / "pellucid.po", tmp_path / "part.po"
    part.write_text(
        'msgid "{n} steps"\nmsgstr "{n} 步"\n\n'
        'msgid "two words that belong together"\nmsgstr "同在"\n\nmsgid "gone"\nmsgstr "没了"\n',
        "utf-8",
    )
    monkeypatch.setattr(messages, "SOURCE", source)
    monkeypatch.setattr(messages, "PO", po)
    monkeypatch.setattr(messages, "MO", po.with_suffix(".mo"))
    messages.update([part])
    assert messages.problems() == []
    with po.with_suffix(".mo").open("rb") as file:
        assert gettext.GNUTranslations(file).gettext("{n} steps") == "{n} 步"
    first = po.read_bytes(), po.with_suffix(".mo").read_bytes()
    messages.update([])
    assert (po.read_bytes(), po.with_suffix(".mo").read_bytes()) == first


@pytest.fixture
def _speak_english_again():
    yield
    language.use("en")


@pytest.mark.usefixtures("_speak_english_again")
@pytest.mark.parametrize("name", ["zh", "zh_CN.UTF-8", "zh-Hans", "ZH"])
def test_chinese_is_spoken_by_any_of_its_names(name):
    english, translated = next((m, t) for m, t in messages.compiled().items() if m != t)
    language.use(name)
    assert language._(english) == translated
    language.use("en_GB.UTF-8")
    assert language._(english) == english


def test_another_language_is_refused():
    with pytest.raises(PellucidError, match="not 'fr'"):
        language.use("fr")


@pytest.mark.usefixtures("_speak_english_again")
@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "fr:zh_TW:en"}, "zh"),
    ],
)
def test_the_environment_decides_unless_told(environment, spoken, monkeypatch):
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(language, "_catalogue", None)
    english, translated = next((m, t) for m, t in messages.compiled().items() if m != t)
    assert language._(english) == (translated if spoken == "zh" else english)
