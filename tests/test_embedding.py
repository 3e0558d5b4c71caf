"""The embedders without a model: reproducible unit vectors, and measured thresholds."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.embedding import Embedder, HashedEmbedder, WordLlama
from sandbox.backends.embedding import Model2VecConfig, check_embedder, embedder_of
from storage.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = ROOT / "benchmarks" / "recall_threshold.py"
QUESTIONS = ROOT / "../shared/data/hh_rlhf_questions.txt"
EMBEDDER: Embedder = HashedEmbedder()
WORDS: Embedder = WordLlama()
both = pytest.mark.parametrize("embedder", [EMBEDDER, WORDS], ids=["hashed", "wordllama"])

needs_questions = pytest.mark.skipif(
    not QUESTIONS.exists(),
    reason="the questions are not there: ../shared/data/hh_rlhf_questions.txt",
)

TEXTS = ["How do I bake a sourdough loaf?", "Why is the sky blue in summer?", "naïve café 中文"]
DIGEST = "ad40401a7918a389"  # of the vectors of TEXTS

ODD = [
    "x" * 100_000,
    "中文" * 50_000,
    "word " * 20_000,
    "a\0b",
    "🎉",
    "🥐 🥖",
    "我怎么做米饭",
    "كيف أطبخ الأرز؟",
    "क्या मैं चावल पका सकता हूँ",
    "ข้าวผัดทำอย่างไร",
    "밥을 어떻게 짓나요",
    "\ud800 and a stray surrogate",
    "who are you",
]
WORDLESS = ["", " ", "\0", "?!...", "'", "\ud800", "\u0301"]

REPHRASED = [
    ("How do I boil an egg?", "What is the best way to boil eggs?"),
    ("Can you tell me how to prune roses?", "how should I prune a rose bush"),
    ("Where can I park near the train station?", "Is there any parking by the station?"),
    ("How long does it take to learn the piano?", "How long should learning piano take me?"),
    ("What should I pack for a camping trip?", "Any advice on packing for a camping trip?"),
    ("How can I stop my bike chain from squeaking?", "my bike chain squeaks, what can I do?"),
    ("我怎么做米饭", "怎么做米饭好吃"),
]
UNRELATED = [
    "How do I boil an egg?",
    "How do I fix a flat tyre?",
    "Where is the best place to see the stars?",
    "What is the tallest mountain in Europe?",
    "Can you tell me when the library opens?",
    "How do I write a thank-you note to my aunt?",
    "Should I water tomatoes every day?",
    "今天天气怎么样",
]


def distance(one: str, other: str, embedder: Embedder = EMBEDDER) -> float:
    first, second = embedder.embed([one, other])
    return 1 - float(first @ second)


def load_benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("recall_threshold", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_python(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def digest(texts: list[str], embedder: Embedder = EMBEDDER) -> str:
    return hashlib.sha256(embedder.embed(texts).astype("<f4").tobytes()).hexdigest()[:16]


@both
def test_shape_and_type(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (3, embedder.dim)
    assert vectors.dtype == np.float32
    assert embedder.embed([]).shape == (0, embedder.dim)
    assert str(embedder.dim) in embedder.name


@both
def test_one_string_is_not_a_sequence_of_texts(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="sequence"):
        embedder.embed("how are you")


@both
@given(st.lists(st.text(max_size=60), max_size=5))
def test_rows_are_unit_vectors_or_zero(embedder: Embedder, texts: list[str]) -> None:
    for vector in embedder.embed(texts):
        assert not vector.any() or np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@both
@given(st.lists(st.text(max_size=60) | st.sampled_from(TEXTS), max_size=6))
def test_a_batch_equals_its_texts_one_by_one(embedder: Embedder, texts: list[str]) -> None:
    alone = [embedder.embed([text])[0] for text in texts]
    assert all(map(np.array_equal, embedder.embed(texts), alone))


@both
def test_a_large_batch_equals_its_texts_one_by_one(embedder: Embedder) -> None:
    texts = [f"How many apples are in {number} baskets?" for number in range(2500)]
    vectors = embedder.embed(texts)
    for row in (0, 1023, 1024, 2047, 2048, 2499):
        assert np.array_equal(vectors[row], embedder.embed([texts[row]])[0])


def test_vectors_are_the_same_in_every_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_embedding as t;"
        "print(t.digest(t.TEXTS))"
    )
    for seed in ("1", "2"):
        assert run_python("-c", code, hash_seed=seed).stdout.strip() == digest(TEXTS)


def test_vectors_are_those_that_the_name_promises() -> None:
    assert (EMBEDDER.name, digest(TEXTS)) == ("hashed-v1-512", DIGEST), "new vectors, new name"
    words = (WORDS.name, digest(TEXTS, WORDS))
    assert words == ("wordllama-l2-256", "573aa3777fb91b1b"), "new vectors, new name"


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_texts_have_unit_vectors(text: str) -> None:
    for embedder in (EMBEDDER, WORDS):
        assert np.linalg.norm(embedder.embed([text])[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", WORDLESS)
def test_a_text_without_a_word_is_at_distance_one_from_everything(text: str) -> None:
    assert [distance(text, other) for other in [*TEXTS, *WORDLESS]] == [1] * 10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I boil an egg?", "  how do I BOIL an egg "),
        ("Don't cafés close?", "dont cafes close"),
        ("Don\u2019t CAFE\u0301S close", "don't cafés close"),
        ("\uff11\uff12 eggs", "12 eggs"),
    ],
)
def test_case_accents_and_punctuation_do_not_count(one: str, other: str) -> None:
    assert np.array_equal(*EMBEDDER.embed([one, other]))


def test_word_order_and_repetition_count_a_little() -> None:
    assert 0 < distance("can dogs see cats", "can cats see dogs") < EMBEDDER.threshold
    assert 0 < distance("tea or coffee", "tea tea tea or coffee") < EMBEDDER.threshold


@pytest.mark.parametrize(
    ("one", "other"),
    [("cookie", "cookies"), ("bake", "baking"), ("stop", "stopped"), ("city", "cities")],
)
def test_forms_of_a_word_are_nearer_than_words_that_look_alike(one: str, other: str) -> None:
    assert distance(one, other) < 0.75 * distance(one, one[:-1] + "q")


def test_telling_words_weigh_more_than_the_phrase_around_them() -> None:
    asked = "What is the best way to peel a mango?"
    assert distance(asked, "how do i peel mangos") < distance(
        asked, "What is the best way to fold a shirt?"
    )


@pytest.mark.parametrize(("one", "other"), REPHRASED)
def test_rephrasings_are_nearer_than_the_threshold(one: str, other: str) -> None:
    assert distance(one, other) < EMBEDDER.threshold


@pytest.mark.parametrize(
    ("asked", "same", "other"),
    [
        ("How do I fix my bicycle?", "What helps a broken bike?", "What helps a broken heart?"),
        ("My dog is ill.", "The puppy seems sick.", "The train seems late."),
        ("Is it fair to lie to a friend?", "May one deceive a pal?", "May one park on a lawn?"),
    ],
)
def test_words_of_the_same_meaning_are_near(asked: str, same: str, other: str) -> None:
    assert distance(asked, same, WORDS) < distance(asked, other, WORDS) - 0.1


def test_unrelated_questions_are_further_than_the_threshold() -> None:
    vectors = EMBEDDER.embed(UNRELATED)
    nearest = 1 - (vectors @ vectors.T - 2 * np.eye(len(UNRELATED))).max()
    assert nearest > EMBEDDER.threshold


def test_false_recall_is_the_share_of_memories_that_hold_something_near() -> None:
    angles = np.random.default_rng(7).uniform(0, 6.28, 250)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    near = (1 - vectors @ vectors.T < 0.02).sum(axis=1) - 1
    expected = np.mean([1 - comb(249 - int(n), 100) / comb(249, 100) for n in near])
    assert load_benchmark().false_recall(vectors)[2] == pytest.approx(expected, abs=1e-3)


def test_a_benchmark_without_questions_says_so_in_one_line() -> None:
    done = run_python(str(BENCHMARK), "--questions", "nowhere.txt")
    assert done.returncode == 2
    assert "nowhere.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rephrasings_are_many_and_evenly_strong() -> None:
    rows = load_benchmark().read_rephrasings()
    assert len(rows) >= 120
    assert len({row.line for row in rows}) == len(rows)
    for half in (rows[::2], rows[1::2]):
        kinds = [row.strength for row in half]
        assert len({kinds.count(kind) for kind in ("light", "middling", "heavy")}) == 1


@both
@needs_questions
def test_the_threshold_is_the_one_that_the_benchmark_recommends(embedder: Embedder) -> None:
    benchmark = load_benchmark()
    questions, rows = benchmark.read_questions(QUESTIONS), benchmark.read_rephrasings()
    measured = benchmark.measure(embedder.embed, questions, rows)
    assert measured.recommended == embedder.threshold
    even = np.arange(len(rows)) % 2 == 1
    assert measured.found(embedder.threshold, even) > 0.5
    assert {row.rephrasing for row in rows}.isdisjoint(questions)


def test_vectors_of_model2vec(tmp_path: Path) -> None:
    pytest.importorskip("model2vec", reason="model2vec is not installed: see the extra `test`")
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", "cat", "dog", "soup"]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    table = np.array([[0, 0, 1], [1, 0, 0], [0.8, 0.6, 0], [0, 1, 0]], np.float32)
    StaticModel(table, tokenizer).save_pretrained(str(tmp_path / "own"))
    setting = Model2VecConfig(backend="model2vec", model=str(tmp_path / "own"))
    check_embedder(setting, "here")
    own = embedder_of(setting)
    vectors = own.embed(["cat", "dog", "cat soup"])
    assert own.name == f"model2vec:{tmp_path / 'own'}" and vectors.shape == (3, 3)
    assert vectors @ vectors[0] == pytest.approx([1, 0.8, 0.5**0.5], abs=1e-3)


def test_embedders_that_cannot_be_used_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Model2VecConfig(backend="model2vec", model=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"^memory.embedder: model2vec:.*nowhere cannot be loaded"):
        embedder_of(setting).embed(["cat"])
    monkeypatch.setattr("agents.embedding.find_spec", lambda name: None)
    monkeypatch.setattr("sandbox.backends.embedding.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wordllama is not installed; expected `pip install"):
        check_embedder("wordllama", "a.yaml")
    with pytest.raises(InputError, match=r"model2vec, which is not installed; expected `pip"):
        check_embedder(setting, "a.yaml")
