import io
import re
import shutil

import pytest

from hf_tle_int8.cli import causal, conversation
from hf_tle_int8.cli.main import main

LINES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TEMPLATE = LINES + "{% if add_generation_prompt %}assistant:{% endif %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module")
def talkative(stories_path, tmp_path_factory):
    """The trained model with a chat template, and another with one that takes no system prompt."""
    root = tmp_path_factory.mktemp("chat")
    for name, template in (("plain", TEMPLATE), ("refusing", REFUSING)):
        shutil.copytree(stories_path, root / name)
        (root / name / "chat_template.jinja").write_text(template)
    return root


def talk(monkeypatch, capsys, folder, lines: str, *options: str) -> tuple[str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    sampling = ["--max-new-tokens", "8", "--temperature", "0"]
    assert main(["chat", str(folder), *sampling, *options]) == 0
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_lines_are_answered_until_exit(talkative, monkeypatch, capsys):
    out, err = talk(monkeypatch, capsys, talkative / "plain", "Hello\n\n  /clear\nHello\n/exit\nHello\n")
    assert err.count("8 new tokens]") == 2
    half = len(out) // 2
    assert out[:half] == out[half:]
    assert out.strip()


def test_what_was_said_is_kept_and_not_computed_again(talkative, monkeypatch, capsys):
    _, err = talk(
        monkeypatch,
        capsys,
        talkative / "plain",
        "Hello\nAnd then?",
        "--system",
        "Be kind, and answer all that they ask.",
    )
    prompts = [int(tokens) for tokens in re.findall(r"prefill of (\d+) tokens", err)]
    tokenizer = causal.load_tokenizer(str(talkative / "plain"))
    said = conversation.Conversation(tokenizer, "Be kind, and answer all that they ask.")
    assert prompts[0] == said.prompt("Hello").shape[1]
    assert prompts[1] < prompts[0]
    said.add("Hello", "Yes.")
    text = tokenizer.decode(said.prompt("And then?")[0], skip_special_tokens=True)
    assert (
        text
        == "system: Be kind, and answer all that they ask.\nuser: Hello\nassistant: Yes.\nuser: And then?\nassistant:"
    )
    said.clear()
    assert "Yes." not in tokenizer.decode(said.prompt("And then?")[0])


def test_too_long_a_line_is_refused_and_the_next_one_answered(talkative, monkeypatch, capsys):
    _, err = talk(monkeypatch, capsys, talkative / "plain", "word " * 600 + "\nHello\n")
    assert "positions for 512" in err
    assert "/clear begins anew" in err
    assert err.count("8 new tokens]") == 1


@pytest.mark.parametrize("template", ["{% for m in", "{{ messages + 1 }}"])
def test_templates_that_are_broken_are_told(stories_path, tmp_path, capsys, template):
    shutil.copytree(stories_path, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    assert main(["chat", str(tmp_path / "model")]) == 2
    assert "the chat template of the model refuses the conversation: T" in capsys.readouterr().err


def test_without_a_stdin_there_is_nothing_to_answer(talkative, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat", str(talkative / "plain")]) == 0
    assert capsys.readouterr().out == ""


def test_models_without_a_template_are_refused(stories_path, capsys):
    assert main(["chat", str(stories_path)]) == 2
    assert "has no chat template: use hf-tle-int8 generate" in capsys.readouterr().err


def test_templates_that_take_no_system_prompt_say_so(talkative, monkeypatch, capsys):
    assert main(["chat", str(talkative / "refusing"), "--system", "Be kind."]) == 2
    error = capsys.readouterr().err
    assert "no system here" in error
    assert "--system" in error
    out, _ = talk(monkeypatch, capsys, talkative / "refusing", "Hello\n")
    assert out.strip()


def test_on_a_terminal_ctrl_c_only_helps_and_ctrl_d_ends(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter([KeyboardInterrupt, " Hello ", EOFError])

    def read(prompt: str) -> str:
        found = next(typed)
        if isinstance(found, str):
            return found
        raise found

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    assert conversation._read() == "Hello"
    assert "/exit" in capsys.readouterr().err
    assert conversation._read() is None
