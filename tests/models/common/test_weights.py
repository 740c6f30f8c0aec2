"""Weights: located without torch, fetched once, read from the official containers, loaded strictly, known by digest."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

from models.common import weights
from models.common.backbone import Backbone
from models.common.card import Card, Checkpoint
from models.common.errors import UserError

CARD = Card(
    name="toy",
    title="Toy",
    inputs=(),
    checkpoint=Checkpoint("manual", file="toy.pth", where="https://example.org/toy"),
    channels=(4, 4, 4, 4),
    strides=(4, 8, 16, 32),
    width=4,
    licence="MIT",
    paper="none",
)
DEO = Checkpoint(
    "manual",
    container=("student",),
    strip=("_orig_mod.", "module.", "backbone."),
    ignore=("head_ms.", "cls_head.", "patch_head_late.", "patch_head_mid."),
)


class Toy(Backbone):
    """A stem, a block with an index table, a norm."""

    def __init__(self, card: Card = CARD) -> None:
        super().__init__(card)
        self.conv_ms = nn.Conv2d(10, 4, 4, 4)
        self.block = nn.Linear(4, 4)
        self.block.register_buffer("index", torch.arange(9))
        self.norm = nn.LayerNorm(4)


def numbered() -> dict[str, torch.Tensor]:
    """A state for `Toy` in which no two values are the same."""
    start, state = 0, {}
    for name, value in Toy().state_dict().items():
        state[name] = torch.arange(start, start + value.numel()).reshape(value.shape).to(value.dtype)
        start += value.numel()
    return state


def loaded(state: dict[str, torch.Tensor]) -> Toy:
    with weights.parameters_on_meta():
        toy = Toy()
    weights.load(toy, state)
    return toy


# parameters_on_meta


def test_parameters_have_no_values_and_buffers_are_right():
    with weights.parameters_on_meta():
        toy = Toy()
    assert all(parameter.is_meta and parameter.requires_grad for parameter in toy.parameters())
    assert {name: value.shape for name, value in toy.named_parameters()} == {
        name: value.shape for name, value in Toy().named_parameters()
    }
    assert torch.equal(toy.get_buffer("block.index"), torch.arange(9))


def test_modules_are_built_as_always_afterwards_even_after_an_error():
    with weights.parameters_on_meta():
        pass
    with pytest.raises(RuntimeError, match="on purpose"), weights.parameters_on_meta():
        raise RuntimeError("on purpose")
    assert not nn.Linear(2, 2).weight.is_meta


def test_the_index_tables_of_a_swin_are_those_of_one_that_was_built_plainly():
    arguments = ([4, 4], 8, [1, 1], [1, 2], [7, 7])
    with weights.parameters_on_meta():
        swin = SwinTransformer(*arguments)
    plain = dict(SwinTransformer(*arguments).named_buffers())
    assert plain
    assert all(torch.equal(value, plain[name]) for name, value in swin.named_buffers())


# read and state_dict


def test_a_flat_checkpoint_loses_what_features_do_not_need(tmp_path):
    torch.save({"mask_token": torch.ones(1, 4), **numbered()}, tmp_path / "dinov2.pth")
    state = weights.state_dict(weights.read(tmp_path / "dinov2.pth"), Checkpoint("https", ignore=("mask_token",)))
    assert list(state) == list(numbered())


def test_safetensors_and_half_precision_become_float32(tmp_path):
    half = {"a": torch.tensor([0.1, 2.5]).half(), "b": torch.tensor([0.1, 3.0]).bfloat16(), "n": torch.arange(3)}
    save_file(half, tmp_path / "toy.safetensors")
    state = weights.state_dict(weights.read(tmp_path / "toy.safetensors"), Checkpoint("hub"))
    assert {name: value.dtype for name, value in state.items()} == {
        "a": torch.float32,
        "b": torch.float32,
        "n": torch.int64,
    }
    assert state["a"].tolist() == [0.0999755859375, 2.5]
    assert state["b"].tolist() == [0.10009765625, 3.0]


def test_two_entries_of_one_name_are_an_error_that_names_it():
    content = {"module.norm.weight": torch.ones(4), "norm.weight": torch.zeros(4)}
    with pytest.raises(UserError, match=r"'norm\.weight' twice"):
        weights.state_dict(content, DEO)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "config": {"lr": 1}}, r"the entries epoch \(int\), config \(dict\)"),
        ({"student": {}}, "an empty dict"),
        ([torch.ones(2)], "an object of class builtins.list"),
        (nn.Linear(2, 2), r"an object of class torch\.nn\.modules\.linear\.Linear: save its state_dict"),
    ],
    ids=["other entries", "empty", "list", "module"],
)
def test_a_file_without_named_tensors_says_what_it_holds(tmp_path, content, found):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=f"holds no tensors by name, but {found}"):
        weights.state_dict(weights.read(tmp_path / "file.pth"), DEO)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: download it again"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"PK\x03\x04 and no more", "is damaged, incomplete or no PyTorch checkpoint"),
        (b"just some text", "is damaged, incomplete or no PyTorch checkpoint"),
    ],
    ids=["empty", "page", "pointer", "cut", "text"],
)
@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_what_is_no_checkpoint_is_one_sentence_with_path_and_remedy(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        weights.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_a_folder_are_one_sentence(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(UserError, match="is no file: give the path of a checkpoint"):
            weights.read(path)


# load


def test_every_value_arrives_at_its_place_and_nothing_stays_on_meta():
    toy = loaded(numbered())
    assert all(torch.equal(value, numbered()[name]) for name, value in toy.state_dict().items())
    assert all(isinstance(value, nn.Parameter) and not value.is_meta for value in toy.parameters())


def test_what_is_done_to_a_loaded_network_reaches_neither_the_state_nor_the_file(tmp_path):
    torch.save(numbered(), tmp_path / "toy.pth")
    before = (tmp_path / "toy.pth").read_bytes()
    state = weights.state_dict(weights.read(tmp_path / "toy.pth"), Checkpoint("https"))
    toy = loaded(state)
    with torch.no_grad():
        for value in (*toy.parameters(), *toy.buffers()):
            value.zero_()
    assert all(torch.equal(state[name], value) for name, value in numbered().items())
    assert (tmp_path / "toy.pth").read_bytes() == before


def test_a_checkpoint_of_another_model_is_one_sentence_that_counts_and_guesses():
    state = numbered()
    for name in ("conv_ms.weight", "conv_ms.bias", "norm.weight", "norm.bias"):
        state["other." + name] = state.pop(name)
    state["block.weight"] = torch.ones(4, 5)
    with pytest.raises(UserError) as caught:
        loaded(state)
    assert str(caught.value) == (
        "the weights do not fit toy (4 missing: conv_ms.weight, conv_ms.bias, norm.weight, ...; "
        "4 unexpected: other.conv_ms.weight, other.conv_ms.bias, other.norm.weight, ...; "
        "1 of another shape or kind: block.weight is (4, 5), not (4, 4)): "
        "is this a checkpoint of another model or variant?"
    )


def test_floats_do_not_pass_for_an_index_table():
    with pytest.raises(UserError, match=r"block\.index is \(9,\), not integer \(9,\)"):
        loaded({**numbered(), "block.index": torch.ones(9)})


def test_a_state_that_does_not_fit_leaves_the_network_as_it_was():
    toy = Toy()
    before = weights.module_digest(toy)
    with pytest.raises(UserError):
        weights.load(toy, {**numbered(), "norm.bias": torch.ones(5)})
    assert weights.module_digest(toy) == before


def test_the_adapter_converts_official_names():
    class Renamed(Toy):
        def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name.replace("official_norm", "norm"): value for name, value in state.items()}

    toy = Renamed()
    weights.load(toy, {name.replace("norm", "official_norm"): value for name, value in numbered().items()})
    assert torch.equal(toy.norm.bias, numbered()["norm.bias"])


# digests


def test_a_module_digest_is_that_of_its_values_wherever_they_came_from():
    assert weights.module_digest(loaded(numbered())) == weights.module_digest(loaded(numbered()))
    single = nn.Linear(1, 1, bias=False)
    nn.init.ones_(single.weight)
    by_hand = hashlib.sha256(b"weight torch.float32 (1, 1)\n" + b"\x00\x00\x80\x3f").hexdigest()
    assert weights.module_digest(single) == by_hand


@pytest.mark.parametrize("name", ["conv_ms.weight", "norm.bias", "block.index"])
def test_a_module_digest_sees_one_changed_value(name):
    toy = loaded(numbered())
    before = weights.module_digest(toy)
    toy.state_dict()[name].view(-1)[-1] += 1
    assert weights.module_digest(toy) != before


def test_a_module_digest_sees_buffers_outside_the_state_dict_names_and_dtypes():
    class Hidden(nn.Module):
        def __init__(self, name: str, value: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer(name, value, persistent=False)

    values = [("a", torch.zeros(2)), ("a", torch.ones(2)), ("b", torch.zeros(2)), ("a", torch.zeros(2, 1))]
    values += [("a", torch.zeros(2, dtype=torch.int32)), ("a", torch.tensor(0.0)), ("a", torch.zeros(2).bfloat16())]
    assert len({weights.module_digest(Hidden(*value)) for value in values}) == len(values)


def test_a_file_digest_is_remembered_until_the_file_changes(tmp_path):
    path, index = tmp_path / "toy.pth", tmp_path / "cache" / "digests.json"
    path.write_bytes(b"one")
    assert weights.digest(path, tmp_path / "cache") == hashlib.sha256(b"one").hexdigest()
    known = json.loads(index.read_text())
    known[str(path)]["sha256"] = "remembered"
    index.write_text(json.dumps(known))
    assert weights.digest(path, tmp_path / "cache") == "remembered"
    assert weights.digest(path, None) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"other")
    assert weights.digest(path, tmp_path / "cache") == hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"PATH": 3}', '{"PATH": {"sha256": "x"}}', "\xff"])
def test_a_damaged_index_of_digests_is_written_anew(tmp_path, damage):
    path, index = tmp_path / "toy.pth", tmp_path / "digests.json"
    path.write_bytes(b"one")
    index.write_bytes(damage.replace("PATH", str(path)).encode("latin-1"))
    assert weights.digest(path, tmp_path) == hashlib.sha256(b"one").hexdigest()
    assert json.loads(index.read_text())[str(path)]["sha256"] == hashlib.sha256(b"one").hexdigest()


# locate and fetch


def placed(cache: Path, content: bytes = b"weights") -> Path:
    path = cache / "weights" / "toy" / "toy.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_random_weights_are_known_by_their_seed(tmp_path):
    assert weights.locate(CARD, "random", tmp_path, seed=3) == weights.Located("random", None, "random-3")


def test_a_file_of_ones_own_is_known_by_its_digest(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"mine")
    expected = weights.Located("file", path, hashlib.sha256(b"mine").hexdigest())
    assert weights.locate(CARD, str(path), tmp_path) == expected
    with pytest.raises(UserError, match="no weights 'offical': give `official`, `random` or the path"):
        weights.locate(CARD, "offical", tmp_path)


def test_a_model_without_weights_has_none_to_load(tmp_path):
    card = replace(CARD, checkpoint=Checkpoint("none"))
    for word in ("official", "random"):
        assert weights.locate(card, word, None) == weights.Located("none", None, "none")
    with pytest.raises(UserError, match="toy has no weights"):
        weights.locate(card, str(placed(tmp_path)), None)


def test_official_weights_are_found_in_the_cache_and_remembered(tmp_path):
    assert weights.locate(CARD, "official", tmp_path) == weights.Located("official", None, "")
    path = placed(tmp_path)
    found = hashlib.sha256(b"weights").hexdigest()
    assert weights.locate(CARD, "official", tmp_path) == weights.Located("official", path, found)
    assert path.with_name("toy.pth.sha256").read_text() == f"{found}  toy.pth\n"
    assert weights.fetch(CARD, tmp_path) == path
    placed(tmp_path, b"changed")
    with pytest.raises(UserError, match=r"has changed since it was first used .* delete .*toy\.pth\.sha256"):
        weights.locate(CARD, "official", tmp_path)


def test_official_weights_that_differ_from_the_published_ones_are_refused(tmp_path):
    card = replace(CARD, checkpoint=replace(CARD.checkpoint, sha256=hashlib.sha256(b"weights").hexdigest()))
    placed(tmp_path)
    assert weights.locate(card, "official", tmp_path).path is not None
    placed(tmp_path, b"tampered")
    with pytest.raises(UserError, match=r"is not the published file .*: delete it and repeat, or load"):
        weights.locate(card, "official", tmp_path)


def test_official_weights_without_a_cache_folder_are_one_sentence():
    with pytest.raises(UserError, match="need a cache folder"):
        weights.locate(CARD, "official", None)


def test_weights_that_a_person_must_fetch_say_which_file_goes_where(tmp_path):
    with pytest.raises(UserError) as caught:
        weights.fetch(CARD, tmp_path)
    assert str(caught.value) == (
        "no official weights for toy: they are not on this machine and cannot be fetched by a program; put toy.pth "
        f"at {tmp_path}/weights/toy/toy.pth (source: https://example.org/toy), or run with `--weights random`"
    )


def test_weights_of_a_web_server_are_fetched_verified_and_noted(server, tmp_path):
    server.files["/toy.pth"] = b"weights"
    found = hashlib.sha256(b"weights").hexdigest()
    card = replace(CARD, checkpoint=Checkpoint("https", file="toy.pth", url=f"{server.url}/toy.pth", sha256=found))
    path = weights.fetch(card, tmp_path)
    assert path.read_bytes() == b"weights"
    assert weights.locate(card, "official", tmp_path) == weights.Located("official", path, found)
    assert weights.fetch(card, tmp_path) == path
    assert len(server.requests) == 1
    assert sorted(item.name for item in path.parent.iterdir()) == ["toy.pth", "toy.pth.sha256"]


def test_without_a_network_one_sentence_says_which_file_goes_where(nowhere, tmp_path):
    card = replace(CARD, checkpoint=Checkpoint("https", file="toy.pth", url=f"{nowhere}/toy.pth"))
    with pytest.raises(
        UserError,
        match=r"no network, or .* is down .*; put toy\.pth at .* \(source: .*\), or run with `--weights random`",
    ):
        weights.fetch(card, tmp_path)


def test_weights_are_located_without_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from models.common import weights; from models import card; "
        "print(weights.locate(card('deo'), 'official', Path(sys.argv[1])).kind, 'torch' in sys.modules, "
        "'huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["official", "False", "False"]
