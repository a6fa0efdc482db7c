"""Saved models in MLflow's form answer as by their own libraries; for classifiers see test_tracking.py."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoImageProcessor,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperModel,
    pipeline,
)

mlflow = pytest.importorskip("mlflow")

from hf_tasks.callbacks.mlflow_model import build_mlflow_model  # noqa: E402

pytestmark = pytest.mark.slow

WORDS = ["[UNK]", "[PAD]", "[MASK]", "[CLS]", "[SEP]", "red", "apple", "pear"]


def _tokenizer():
    plain = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return plain


@pytest.mark.parametrize("kind", ["text-generation", "fill-mask"])
def test_a_language_model_loads_as_a_pipeline_and_answers_by_pyfunc(tmp_path, kind):
    torch.manual_seed(0)
    if kind == "fill-mask":
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        BertForMaskedLM(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(tmp_path / "saved")
    else:
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1}
        config = GPT2Config(vocab_size=len(WORDS), bos_token_id=3, eos_token_id=1, **sizes)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "saved")
    tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]", "eos_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), **tokens).save_pretrained(tmp_path / "saved")
    beginning = "red [MASK] pear" if kind == "fill-mask" else "red apple"
    settings = {} if kind == "fill-mask" else {"do_sample": False, "max_new_tokens": 4}

    built = build_mlflow_model(tmp_path / "saved", tmp_path / "built", task="language-model")

    loaded, own = mlflow.transformers.load_model(str(built)), pipeline(kind, model=str(tmp_path / "saved"))
    assert loaded(beginning, **settings) == own(beginning, **settings)
    [answer] = np.ravel(mlflow.pyfunc.load_model(str(built)).predict([beginning]))
    assert re.fullmatch(rf"(\s*({'|'.join(map(re.escape, WORDS))}))+\s*", answer)


def test_an_encoder_of_pairs_gives_its_embeddings(tmp_path):
    model = SentenceTransformer(modules=[StaticEmbedding(_tokenizer(), embedding_dim=8)], device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    texts = ["red apple", "pear"]

    built = build_mlflow_model(tmp_path / "saved", tmp_path / "built", task="siamese")

    found = mlflow.pyfunc.load_model(str(built)).predict(texts)
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)
    np.testing.assert_allclose(mlflow.sentence_transformers.load_model(str(built)).encode(texts), found)


@pytest.mark.parametrize("is_projected", [True, False])
def test_an_embedding_network_gives_unit_vectors_of_picture_files(tmp_path, is_projected):
    names = {0: "embedding_0", 1: "embedding_1"} if is_projected else {}
    mean = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": len(names)}
    config = TimmWrapperConfig(architecture="resnet10t", pretrained_cfg=mean, id2label=names)
    config.flip_average = not is_projected
    torch.manual_seed(0)
    network = (TimmWrapperForImageClassification if is_projected else TimmWrapperModel)(config).eval()
    network.save_pretrained(tmp_path / "saved")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, picture in zip(paths, pixels, strict=True):
        Image.fromarray(picture).save(path)

    built = build_mlflow_model(tmp_path / "saved", tmp_path / "built", task="metric-learning")

    found = mlflow.pyfunc.load_model(str(built)).predict([str(path) for path in paths])
    processor = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    for path, vector in zip(paths, found, strict=True):
        seen = processor(Image.open(path), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            if is_projected:
                [expected] = network(seen).logits
            else:
                [one], [other] = network(seen).pooler_output, network(seen.flip(-1)).pooler_output
                expected = one / one.norm() + other / other.norm()
        assert vector == pytest.approx((expected / expected.norm()).tolist(), abs=1e-5)


def test_what_mlflow_knows_no_model_of_is_sent_as_it_was_saved(tmp_path):
    assert build_mlflow_model(tmp_path, tmp_path / "built", task="a-task-to-come") == tmp_path
