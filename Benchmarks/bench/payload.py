"""JSON payloads in the page layout of Qdrant's payload storage."""

import numpy as np

BLOCK = 128
SYLLABLES = [c + v + e for c in ("b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl", "ch", "")
             for v in ("a", "e", "i", "o", "u", "ea", "io") for e in ("", "", "n", "r", "s", "l", "t")]
LANGUAGES = ["en", "en", "en", "en", "de", "fr", "es", "pt", "ja", "it"]
SOURCES = [f"https://{host}.example/{part}/" for host in ("docs", "news", "wiki", "forum", "blog", "shop", "arxiv", "mail")
           for part in ("a", "articles", "p", "thread", "item", "entry", "archive")]


def zipf(count: int, offset: float, exponent: float) -> np.ndarray:
    """Cumulative probabilities of a Zipf-Mandelbrot distribution."""
    weights = 1.0 / np.power(np.arange(count) + offset, exponent)
    return np.cumsum(weights) / weights.sum()


class PayloadWriter:
    """Makes records from one fixed vocabulary; the text of each page depends on its own seed only."""

    def __init__(self, seed: int, words: int = 120_000, phrases: int = 400_000):
        rng = np.random.default_rng([seed, 0x766F63])
        lengths = 1 + np.minimum(rng.poisson(1.3, words), 4)
        lengths[:100] = 1
        self.words = ["".join(SYLLABLES[i] for i in rng.integers(0, len(SYLLABLES), n)) for n in lengths]
        self.word_cdf = zipf(words, 2.7, 1.0)
        sizes = rng.integers(2, 6, phrases)
        picks = iter(np.searchsorted(self.word_cdf, rng.random(int(sizes.sum()))).tolist())
        self.phrases = [" ".join(self.words[next(picks)] for _ in range(n)) for n in sizes.tolist()]
        self.phrase_cdf = zipf(phrases, 50.0, 0.8)

    def records(self, rng: np.random.Generator, count: int) -> list[bytes]:
        """`count` payloads of about 290 bytes, each padded to whole blocks."""
        titles = np.searchsorted(self.word_cdf, rng.random((count, 5))).tolist()
        texts = np.searchsorted(self.phrase_cdf, rng.random((count, 7))).tolist()
        tags = (rng.random((count, 2)) ** 3 * 400).astype(int).tolist()
        lengths = rng.integers(3, 8, count).tolist()
        ids = rng.integers(0, 2**63, count).tolist()
        numbers = rng.integers(0, 10_000, (count, 3)).tolist()
        words, phrases, out = self.words, self.phrases, []
        for i in range(count):
            number, title, tag = numbers[i], titles[i], tags[i]
            text = " ".join([phrases[k] for k in texts[i][:lengths[i]]])
            record = (
                f'{{"doc":"{ids[i]:016x}","source":"{SOURCES[number[0] % len(SOURCES)]}{words[title[0]]}-{words[title[1]]}",'
                f'"lang":"{LANGUAGES[number[1] % len(LANGUAGES)]}","year":{1990 + number[0] % 36},'
                f'"score":0.{number[2]:04d},"tags":["{words[100 + tag[0]]}","{words[100 + tag[1]]}"],'
                f'"title":"{" ".join([words[k] for k in title]).capitalize()}","text":"{text.capitalize()}."}}'
            ).encode()
            out.append(record.ljust(-(-len(record) // BLOCK) * BLOCK, b"\0"))
        return out

    def page(self, rng: np.random.Generator, size: int) -> bytes:
        """Records until no further one fits into `size` bytes."""
        parts, used = [], 0
        while True:
            for record in self.records(rng, 4096):
                if used + len(record) > size:
                    return b"".join(parts)
                parts.append(record)
                used += len(record)
