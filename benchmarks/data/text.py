"""Text as a dataset of TFDS: sequences of tokens, of byte pairs that are merged by what training shows."""

import platform
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import tensorflow_datasets as tfds
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.data import corpora
from benchmarks.data.corpora import Documents

DownloadManager: TypeAlias = tfds.download.DownloadManager


class Text(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """Sequences of `LENGTH` tokens and the one after them, of documents that follow each other."""

    VERSION = tfds.core.Version("1.0.0")
    LENGTH, VOCABULARY = 64, 1024
    TRAINED_ON: int | None = None  # how many sequences of the training documents are kept; None for all.
    HELD_OUT = 1024  # sequences for validation and for the test each, evenly spaced.

    def documents(self, source: DownloadManager) -> Documents:
        """Returns the text, which may come from the folder `source.manual_dir`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"tokens": tfds.features.Tensor(shape=(self.LENGTH + 1,), dtype=np.int32)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: DownloadManager) -> dict[str, Any]:
        documents = self.documents(dl_manager)
        tokenizer = train_tokenizer(documents["train"], self.VOCABULARY)
        self.info.metadata["tokenizer"] = tokenizer.to_str()
        rows = {name: sequences(tokenizer, texts, self.LENGTH + 1) for name, texts in documents.items()}
        kept = {name: _evenly_spaced(rows[name], self.HELD_OUT) for name in ("validation", "test")}
        kept["train"] = rows["train"][: self.TRAINED_ON]
        return {name: self._generate_examples(kept[name]) for name in ("train", "validation", "test")}

    def _generate_examples(self, rows: np.ndarray) -> Iterator[Any]:
        for key, row in enumerate(rows):
            yield key, {"tokens": row}


class Stdlib(Text):
    """The source of Python's standard library, of the Python that prepares it."""

    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=f"python{platform.python_version()}")]

    def documents(self, source: DownloadManager) -> Documents:
        """Returns the files that are installed."""
        return corpora.standard_library(corpora.STANDARD_LIBRARY)


class Austen(Text):
    """Six novels by Jane Austen."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "R's file of the novels"

    def documents(self, source: DownloadManager) -> Documents:
        """Returns the novels."""
        return corpora.austen(source.manual_dir)


class C4(Text, skip_registration=True):  # type: ignore[call-arg]  # TFDS has one of that name.
    """The beginning of C4, as much of it as STACEY's paper trains on: 5,000 batches of 16 sequences."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "the folder of c4/en in a version"
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="tokens")]  # beside TFDS's own, as "en".
    LENGTH, VOCABULARY, TRAINED_ON = 256, 32_000, 80_000

    def documents(self, source: DownloadManager) -> Documents:
        """Returns documents from a folder of TFDS."""
        return corpora.c4(source.manual_dir)


def train_tokenizer(documents: Sequence[str], vocabulary: int) -> Tokenizer:
    """Returns a tokenizer of bytes and merged bytes; it lacks the last token of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Returns how many tokens there are: those of the tokenizer, and one that ends each document."""
    return tokenizer.get_vocab_size() + 1


def sequences(tokenizer: Tokenizer, documents: Sequence[str], length: int) -> np.ndarray:
    """Returns int32 [n, length], the documents one after the other; what is left at the end is dropped."""
    end = vocabulary_size(tokenizer) - 1
    parts = [np.array([*encoding.ids, end], np.int32) for encoding in tokenizer.encode_batch_fast(documents)]
    tokens = np.concatenate(parts)
    return tokens[: len(tokens) // length * length].reshape(-1, length)


def _evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) <= count:
        return rows
    return rows[np.arange(count) * len(rows) // count]
