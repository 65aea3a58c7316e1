"""What must work where the package is installed from its wheel, away from the repository: ``make dist`` runs it.

python -I tests/installed.py

Without the network: a small random Llama is quantized while it loads, generates, is saved, and comes back the same.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import hf_tle_int8
from hf_tle_int8.version import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("hf-tle-int8")


def demand(condition: bool, what: str) -> None:
    """Exit with ``what`` unless ``condition``."""
    if not condition:
        sys.exit(f"{__file__}: {what}")


def check_model(folder: Path) -> None:
    """Quantize a random model while it loads, generate, save it to ``folder`` and load it again."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 1, "vocab_size": 100}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, eos_token_id=None)
    LlamaForCausalLM(config).save_pretrained(folder / "float")
    quantization = hf_tle_int8.TLEInt8Config()
    model = AutoModelForCausalLM.from_pretrained(folder / "float", quantization_config=quantization)
    linears = [module for module in model.modules() if isinstance(module, hf_tle_int8.TLEInt8Linear)]
    demand(len(linears) == 7, f"{len(linears)} of the 7 linears of the layer are INT8.")
    model.save_pretrained(folder / "int8")
    again = AutoModelForCausalLM.from_pretrained(folder / "int8")
    prompt = torch.arange(8)[None]
    tokens, repeated = (each.generate(prompt, max_new_tokens=4, do_sample=False) for each in (model, again))
    demand(tokens.shape == (1, 12), f"generated {tuple(tokens.shape)}, not 4 tokens.")
    demand(torch.equal(model(prompt).logits, again(prompt).logits), "the saved model computes something else.")
    demand(torch.equal(tokens, repeated), "the saved model generates something else.")


def main() -> None:
    """Check all, print what was checked."""
    where = Path(hf_tle_int8.__file__).parent
    demand(where != REPOSITORY / "hf_tle_int8", f"hf_tle_int8 is not installed: it is that of {where}.")
    demand((where / "py.typed").is_file(), "py.typed is missing, so its types are ignored.")
    demand("tle_cpu" in triton.backends.backends, f"triton sees only {sorted(triton.backends.backends)}.")
    report = subprocess.run([COMMAND, "env"], capture_output=True, text=True, check=True).stdout
    demand(__version__ in report, f"hf-tle-int8 env does not name {__version__}:\n{report}")
    with tempfile.TemporaryDirectory() as folder:
        check_model(Path(folder))
    print(f"hf_tle_int8 {__version__} of {where} works")


if __name__ == "__main__":
    main()
