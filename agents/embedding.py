"""Embeddings: texts as unit vectors, so that similar questions are near each other.

`WordLlama`, the default, averages word vectors that the package wordllama ships (MIT licence,
https://github.com/dleemiller/WordLlama): it knows meanings, offline and without a model to run.

`HashedEmbedder` needs no file at all. It hashes stemmed words and their letter trigrams to
signed coordinates (Weinberger et al., arXiv 0902.2206), with lower weights for words that occur in
any question. It uses no corpus statistics, so a text has the same vector in every run. It captures
wording, not meaning: a rephrasing that shares no word with the original is not found.
`benchmarks/recall_threshold.py` measures how well it works.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Converts texts to unit vectors.

    Attributes:
        name: model and version; vectors of embedders with different names are not comparable.
        dim: number of dimensions.
        threshold: the cosine distance (0 to 2) below which two texts are similar.
    """

    name: str
    dim: int
    threshold: float

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of shape (len(texts), dim), each row of unit length.

        A text without words may have a row of zeros, at distance 1 from every vector.
        """
        ...


_DIM = 512  # a power of two: the low bits of a hash are the coordinate
_SPREAD = 4  # coordinates per word or text, so that one hash collision has little weight
_BLOCK = 1024  # texts embedded at a time: their sums take 4 MiB

# Weights of a word on each of its coordinates. They are integers, so that sums are exact and a
# vector is the same in any batch and on any machine.
_FUNCTION, _QUESTION, _COMMON, _CONTENT = 6, 14, 24, 40
_TRIGRAMS = 1.2  # norm of a word's letter trigrams, as a multiple of its weight
_FULL_TEXT = 30  # the exact wording: separates short texts with the same content word

_FUNCTION_WORDS = """
a about also am an and any are arent as at be been being but by can cant could couldnt d did didnt
do does doesnt doing done dont for from had has have having he her here him his how hows i if im in
into is isnt it its ive just ll m may me might mine must my no not of off on or our out over re s
shall she should shouldnt so some such t than that the their them then there these they this those
to too up us ve very was we were what whats when where wheres which who whom whos whose why will
with wont would wouldnt you your yours
"""

_QUESTION_WORDS = """
advice advise anyone anything best better come ever everyone everything explain feel find get give
go going good help idea ideas keep know least less let like lot make many more most much need ok
okay one own people person please possible put recommend right say someone something start
suggest suggestion suggestions take tell thing things think try use want way ways
"""

_COMMON_WORDS = """
after again against all already always around ask asked away baby back bad because been before
believe between big bit black body both boy boyfriend boys bring brother buy call called came car
case cause change child children city close cold computer cost country dad daughter day days did
different door down drink drive during each early easily easy eat eating end every eye face fact
family far fast father feeling feels felt few first five food found four free friend friends fun
funny gave gets getting girl girlfriend girls given goes gone got great group guy guys half hand
happen happened happens happy hard head hear heard high hold home hot hour hours house hundred
husband important internet job kid kids kind known knew last late learn leave left life listen
little live living long look looking looks love low made makes making man mean means meet men
minute minutes mom money month months mother move name near needed needs never new next night
number often old online open other parents part pay phone place play point problem question
quick quickly ran read real really reason red remember room run said same saw saying says school
second see seem seems seen sell send shop short show side since sister sit sleep small son sort
speak spend stand started stay still stop store story street sure taken talk teach tell ten
thinking thought three through time times today together told tomorrow tonight took tried true
trying turn two type under until used using wait walk wanted wants watch water wear website week
weeks went white wife without woman women word words work worked working works world write wrong
year years yesterday yet young
"""

_WEIGHTS = {
    **dict.fromkeys(_COMMON_WORDS.split(), _COMMON),
    **dict.fromkeys(_QUESTION_WORDS.split(), _QUESTION),
    **dict.fromkeys(_FUNCTION_WORDS.split(), _FUNCTION),
}

# Scripts written without spaces (Thai to Lao, Myanmar, Khmer, kana and Han) and pictographs.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_PICTOGRAPHS = "\u2600-\u27bf\U0001f000-\U0001faff"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # `re` does not count their vowel signs as letters
_TOKEN = re.compile(
    f"(?P<run>[{_UNSPACED}]+)|[{_PICTOGRAPHS}]|(?:[^\\W_{_UNSPACED}]|[{_INDIC}]){{1,64}}"
)
_DROPPED = re.compile("['\u2019\u0300-\u036f\u064b-\u065f]")  # apostrophes, accents, Arabic vowels


def _fold(text: str) -> str:
    """Normalise case, accents, apostrophes and compatibility variants of letters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.casefold())
        return unicodedata.normalize("NFC", _DROPPED.sub("", text))
    return text.lower().replace("'", "")


def _words(text: str) -> list[str]:
    """The words in order; for scripts without spaces, characters and pairs of them."""
    words: list[str] = []
    for match in _TOKEN.finditer(_fold(text)):
        words += [match[0]] if match["run"] is None else _characters_and_pairs(match[0])
    return words


def _characters_and_pairs(run: str) -> list[str]:
    return [*run, *map("".join, pairwise(run))]


def _stem(word: str) -> str:
    """A light English stemmer: cookies and cookie, baking and bake have the same stem."""
    if len(word) < 4 or not word.isascii():
        return word
    return _without_e(_without_ing(_singular(word)))


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and word[-2] not in "siu" else word


def _without_ing(word: str) -> str:
    root = word.removesuffix("ing").removesuffix("ed")
    if root == word or len(root) < 3 or not set(root) & set("aeiouy"):
        return word
    doubled = len(root) > 3 and root[-1] == root[-2] and root[-1] not in "ls"
    return root[:-1] if doubled else root


def _without_e(word: str) -> str:
    if len(word) > 3 and word[-1] == "e":
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word[-1] == "y" else word


def _hash(kind: bytes, text: str, count: int) -> bytes:
    """`count` codes of two bytes: the low bits are a coordinate, the highest bit is the sign."""
    return blake2b(text.encode(), digest_size=2 * count, person=kind).digest()


def _signed(codes: bytes, sizes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Coordinates, and values of the given sizes with the signs from the codes."""
    code = np.frombuffer(codes, "<u2").astype(np.int32)
    return code & (_DIM - 1), np.where(code >> 15, sizes, -sizes)


@lru_cache(maxsize=1 << 14)
def _features(word: str) -> NDArray[np.int32]:
    """The features of one word: coordinates and signed weights, shape (2, features)."""
    weight = _WEIGHTS.get(word, _CONTENT)
    marked = f"<{word}>"
    trigrams = [marked[i : i + 3] for i in range(len(marked) - 2)] if weight >= _COMMON else []
    codes = _hash(b"word", _stem(word), _SPREAD)
    codes += b"".join(_hash(b"triple", trigram, 1) for trigram in trigrams)
    each = round(_TRIGRAMS * weight / sqrt(len(trigrams) or 1))
    sizes = np.array([weight] * _SPREAD + [each] * len(trigrams), np.int32)
    return np.stack(_signed(codes, sizes))


def _sums(texts: Sequence[str]) -> NDArray[np.float64]:
    """Sums of features, each word of a text counted once, shape (len(texts), _DIM)."""
    words = [_words(text) for text in texts]
    parts = [[_features(word) for word in dict.fromkeys(text)] for text in words]
    lengths = [sum(part.shape[1] for part in row) for row in parts]
    flat = [np.zeros((2, 0), np.int32), *(part for row in parts for part in row)]
    places, values = np.concatenate(flat, axis=1)
    return _sum_by_coordinate(lengths, places, values) + _full_text_features(words)


def _full_text_features(words: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """The feature of each text's exact wording, shape (len(words), _DIM)."""
    codes = b"".join(_hash(b"whole", " ".join(text), _SPREAD) for text in words)
    sizes = np.repeat(np.array([_FULL_TEXT * bool(text) for text in words], np.int32), _SPREAD)
    return _sum_by_coordinate([_SPREAD] * len(words), *_signed(codes, sizes))


def _sum_by_coordinate(
    lengths: Sequence[int], places: NDArray[np.int32], values: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Sum values by coordinate: the first lengths[0] values go to row 0, and so on."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(rows * _DIM + places, values, len(lengths) * _DIM)
    return sums.astype(np.float64, copy=False).reshape(len(lengths), _DIM)


class HashedEmbedder:
    """Embeds wording: no files, deterministic, 512 dimensions.

    Its threshold is the largest, in hundredths, at which a look-up among 100 unrelated questions
    finds one in at most 5 % of cases, as measured by `benchmarks/recall_threshold.py`.
    """

    name: str = f"hashed-v1-{_DIM}"
    dim: int = _DIM
    threshold: float = 0.53

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), 512); a row of zeros for a text without words.

        The vector of a text does not depend on the other texts, bit for bit.

        Raises:
            TypeError: `texts` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("embed: found one text; expected a sequence of texts")
        vectors = np.zeros((len(texts), _DIM), np.float32)
        for start in range(0, len(texts), _BLOCK):
            sums = _sums(texts[start : start + _BLOCK])
            lengths = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
            vectors[start : start + _BLOCK] = sums / np.maximum(lengths, 1.0)
        return vectors


class WordLlama:
    """The default embedder: the mean of static vectors of a text's tokens, 256 dimensions.

    The vectors are those of the package wordllama, read once a process from its two files. Its
    threshold is measured as that of the hashed embedder.
    """

    name: str = "wordllama-l2-256"
    dim: int = 256
    threshold: float = 0.41

    @staticmethod
    def check() -> None:
        """Check that the package is installed. Raises FileNotFoundError if it is not."""
        _files()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of shape (len(texts), 256); a row of zeros for a text without words.

        The vector of a text does not depend on the other texts, bit for bit.

        Raises:
            TypeError: `texts` is a single string.
            FileNotFoundError: the package is not installed, or has not these files.
        """
        if isinstance(texts, str):
            raise TypeError("embed: found one text; expected a sequence of texts")
        tokenizer, table = _word_vectors()
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            valid = text.encode("utf-8", "replace").decode("utf-8")
            tokens = tokenizer.encode(valid, add_special_tokens=False).ids
            total = table[tokens].sum(axis=0, dtype=np.float64)
            vectors[row] = total / max(float(np.sqrt(np.square(total).sum())), 1e-12)
        return vectors


@lru_cache(maxsize=1)
def _word_vectors() -> tuple[Any, NDArray[np.float32]]:
    """The tokenizer and the vectors of all tokens, without importing the package's own code."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    weights, words = _files()
    return Tokenizer.from_file(str(words)), load_file(weights)["embedding.weight"].astype(
        np.float32
    )


def _files() -> tuple[Path, Path]:
    """The files of the package wordllama: its vectors and its tokenizer."""
    found = find_spec("wordllama")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package wordllama is not installed")
    folder = Path(found.origin).parent
    weights = folder / "weights" / "l2_supercat_256.safetensors"
    words = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    for file in (weights, words):
        if not file.is_file():
            raise FileNotFoundError(f"found no {file.name} in the package wordllama")
    return weights, words
