"""Weights, checkpoints, models and data sets of others are read, and never run."""

import json
import pickle
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from attacks import Attack, code, write_pickle
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_tasks.data.load import load_rows
from hf_tasks.data.sources import HubSource
from hf_tasks.errors import DataError, ModelError
from hf_tasks.images.backbone import open_weights
from hf_tasks.tasks.language_model.model import open_model
from hf_tasks.tasks.language_model.settings import Model as LanguageSettings
from hf_tasks.tasks.siamese.model import open_encoder
from hf_tasks.tasks.siamese.settings import Model as PairSettings

ARCHITECTURE = "test_vit"


@pytest.fixture
def mark(tmp_path):
    """Written by code that is run; a test fails if it is there at its end."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "code of the attack was run"


def test_the_attack_works_where_nothing_stops_it(tmp_path):
    path = write_pickle(tmp_path / "model.pth", tmp_path / "ran")

    pickle.loads(path.read_bytes())

    assert (tmp_path / "ran").exists()


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def open_settings(name, *, weights=None):
    return open_weights(str(name), pretrained=False, weights=None if weights is None else str(weights))


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.safetensors"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_weights_is_never_unpickled(tmp_path, mark, name, is_zip):
    path = write_pickle(tmp_path / name, mark)
    if is_zip:
        torch.save({"weight": Attack(mark)}, path)

    with pytest.raises(ModelError, match=r"^model\.weights: .*not a file of weights") as refused:
        open_settings(ARCHITECTURE, weights=path)

    one_line(refused)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 70) + b'{"w": {"dtype": "U8", "shape": [90000000], "data_offsets": [0, 9000000]}}',
        struct.pack("<Q", 62) + b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
    ids=["length", "shape", "offset", "nesting"],
)  # fmt: skip
def test_headers_of_safetensors_that_lie_are_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(header)

    with pytest.raises(ModelError, match=r"^model\.weights: .*is not a file of weights") as refused:
        open_settings(ARCHITECTURE, weights=path)

    one_line(refused)


def test_a_folder_of_pictures_models_holds_no_pickle_that_is_read(tmp_path, mark):
    config = {"architecture": ARCHITECTURE, "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    (tmp_path / "evil.py").write_text(code(mark))
    for name in ("pytorch_model.bin", "training_args.bin", "model.pth"):
        write_pickle(tmp_path / name, mark)

    with pytest.raises(ModelError, match=r"^model\.name: no file .*model\.safetensors$"):
        open_settings(tmp_path)


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "[MASK]": 2, "word": 3}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]", eos_token="[PAD]"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def add_code(folder: Path, mark: Path, *, model_type: str) -> None:
    """Ask for own code wherever transformers looks for such a wish."""
    (folder / "evil.py").write_text(code(mark))
    wish = {
        "AutoConfig": "evil.Evil",
        "AutoModel": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values |= {"auto_map": wish, "trust_remote_code": True}
        values |= {"model_type": model_type} if name == "config.json" else {"tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(values))


def open_language_model(folder: Path):
    return open_model(LanguageSettings(name=str(folder)), is_causal=True)


@pytest.fixture
def language_folder(tmp_path) -> Path:
    folder = tmp_path / "language"
    write_tokenizer(folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder)
    return folder


@pytest.fixture
def text_folder(tmp_path) -> Path:
    folder = tmp_path / "plain"
    write_tokenizer(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=4, **sizes)).save_pretrained(folder)
    return folder


def test_a_language_model_with_code_of_its_own_is_refused(language_folder, mark):
    add_code(language_folder, mark, model_type="evil")

    with pytest.raises(
        ModelError, match=r"^model\.name: .* brings code of its own, which is never run"
    ) as no:
        open_language_model(language_folder)

    assert "trust" not in one_line(no)


def test_code_beside_a_language_model_that_transformers_knows_is_never_run(language_folder, mark):
    add_code(language_folder, mark, model_type="gpt2")

    # transformers 4 asks for the code and is refused; transformers 5 takes the model that it knows.
    with suppress(ModelError):
        open_language_model(language_folder)

    assert not mark.exists()


def test_pickled_weights_of_a_language_model_are_refused(language_folder, mark):
    (language_folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin"):
        torch.save({"weight": Attack(mark)}, language_folder / name)

    with pytest.raises(
        ModelError, match=r"^model\.name: .* pickled objects, which are never loaded"
    ) as refused:
        open_language_model(language_folder)

    one_line(refused)


def open_pairs(folder: Path):
    return open_encoder(PairSettings(name=str(folder)))


def test_an_encoder_of_transformers_with_code_of_its_own_is_refused(text_folder, mark):
    add_code(text_folder, mark, model_type="evil")
    (text_folder / "sentence_bert_config.json").write_text(
        json.dumps({"model_args": {"trust_remote_code": True}, "config_args": {"trust_remote_code": True}})
    )

    with pytest.raises(
        ModelError, match=r"^model\.name: .* brings code of its own, which is never run"
    ) as no:
        open_pairs(text_folder)

    one_line(no)


def test_pickled_weights_of_an_encoder_are_refused(text_folder, mark):
    (text_folder / "model.safetensors").unlink()
    torch.save({"weight": Attack(mark)}, text_folder / "pytorch_model.bin")

    with pytest.raises(
        ModelError, match=r"^model\.name: .* pickled objects, which are never loaded"
    ) as refused:
        open_pairs(text_folder)

    one_line(refused)


def static_embedding() -> StaticEmbedding:
    return StaticEmbedding(Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), torch.ones(1, 4))


@pytest.mark.parametrize("kind", ["evil.Evil", "evil", "sentence_transformers.base.model.torch", "os.system"])
def test_a_class_that_a_sentence_transformer_names_is_not_imported(tmp_path, mark, kind, monkeypatch):
    folder = tmp_path / "sentences"
    SentenceTransformer(modules=[static_embedding()], device="cpu").save_pretrained(str(folder))
    (folder / "evil.py").write_text(code(mark))
    monkeypatch.syspath_prepend(str(folder))
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([{**modules[0], "type": kind}]))

    with pytest.raises(
        ModelError, match=rf"^model\.name: .* brings code of its own \('{kind}' in "
    ) as refused:
        open_pairs(folder)

    one_line(refused)


def test_a_class_that_a_router_names_is_not_imported_either(tmp_path, mark):
    folder = tmp_path / "sentences"
    router = Router.for_query_document([static_embedding()], [static_embedding()])
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder))
    (folder / "evil.py").write_text(code(mark))
    [path] = folder.rglob("router_config.json")
    values = json.loads(path.read_text())
    values["types"] = dict.fromkeys(values["types"], "evil.Evil")
    path.write_text(json.dumps(values))

    with pytest.raises(ModelError, match=r"brings code of its own \('evil\.Evil', 'evil\.Evil' in "):
        open_pairs(folder)


def test_usual_models_of_all_kinds_still_open(tmp_path, text_folder, language_folder):
    folder = tmp_path / "sentences"
    SentenceTransformer(modules=[static_embedding()], device="cpu").save_pretrained(str(folder))
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")

    assert open_language_model(language_folder) is not None
    assert open_pairs(folder) is not None
    assert open_settings(ARCHITECTURE, weights=tmp_path / "weights.safetensors").tensors["weight"].sum() == 2


def test_a_script_in_a_data_set_is_not_run(tmp_path, mark, own_cache):
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "pets.py").write_text(code(mark))

    with pytest.raises(DataError, match=r"^data\.train\.hub: "):
        load_rows(HubSource(hub=str(folder)), key="data.train")
    with pytest.raises(DataError, match=r"^data\.train\.hub: "):
        load_rows(HubSource(hub=str(folder / "pets.py")), key="data.train")


def test_pickles_in_a_saved_data_set_are_not_read(tmp_path, mark, own_cache):
    folder = tmp_path / "pets"
    folder.mkdir()
    for name in ("train.pkl", "train.pickle", "data.pt", "train.npy", "train.parquet"):
        write_pickle(folder / name, mark)
    shutil.copy(folder / "train.pkl", folder / "state.json")

    with pytest.raises(DataError, match=r"^data\.train\.hub: "):
        load_rows(HubSource(hub=str(folder)), key="data.train")
