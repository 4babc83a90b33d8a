"""Help has one form for all commands, and its examples are accepted."""

from __future__ import annotations

import shlex

import pytest

from wm_models.registry import SUMMARIES
from wm_nodes.assets import pretrained, version
from wm_nodes.cli.arguments import parse
from wm_nodes.cli.commands import CLASSES, options_of
from wm_nodes.cli.examples import EXAMPLES
from wm_nodes.cli.main import COMMANDS, main
from wm_nodes.errors import UserError
from wm_nodes.graphs import find_graph
from wm_nodes.graphs.arguments import MODELS
from wm_nodes.graphs.graph import split_words

GROUPS = ("arm", "log", "study", "launch")


def help_text(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = main([*command.split(), "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    return capsys.readouterr().out


def test_every_command_is_in_the_table_or_a_group():
    assert {command.split()[0] for command in CLASSES} | {"launch"} == set(COMMANDS)
    assert set(EXAMPLES) == {"", *CLASSES, *GROUPS}


@pytest.mark.parametrize("command", ["", *GROUPS, *CLASSES])
def test_help_has_one_form(command, capsys):
    text = help_text(command, capsys)
    assert text.startswith(f"usage: wm {command}".rstrip())
    sections = [section.splitlines()[0] for section in text.split("\n\n")]
    assert "examples:" in sections
    assert sections[1:] and any(
        section in sections for section in ("options:", "commands:", "graphs:")
    )
    assert max(map(len, text.splitlines())) <= 110
    assert not set("│╭╰─") & set(text)


@pytest.mark.parametrize("command", CLASSES)
def test_help_lists_every_option_with_a_text(command, capsys):
    text = " ".join(help_text(command, capsys).split())
    options = options_of(command)
    assert bool(options) == (command != "models")  # which only lists them
    for option in options:
        assert option.text, option.name
        assert (option.words or (option.name,))[-1] in text
        assert option.text in text


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_are_accepted(command):
    for line in EXAMPLES[command]:
        assert f"wm {command}".strip() in line, line
        arguments = shlex.split(
            line.split("wm ", 1)[1].split(" > ")[0].split(" && ")[0].rstrip(")")
        )
        if arguments[0] == "launch":
            find_graph(arguments[1]).parse(
                split_words([w for w in arguments[2:] if w != "--show-args"])
            )
            continue
        pair = " ".join(arguments[:2])
        full = pair if arguments[0] in GROUPS or pair in CLASSES else arguments[0]
        flags = {argument for option in options_of(full) for argument in option.words}
        assert {argument for argument in arguments if argument.startswith("--")} <= flags, line


def test_the_version_is_the_package_s(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wm_nodes {version()}\n"
    assert version()[0].isdigit()


def test_models_are_listed(capsys):
    assert set(MODELS) == set(SUMMARIES)
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in MODELS)


def test_weights_are_listed(capsys, monkeypatch, tmp_path):
    shipped = next(iter(pretrained().values()))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "weights").symlink_to(shipped)
    monkeypatch.chdir(tmp_path)
    assert main(["weights"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in pretrained())
    assert "runs/mine/weights" in out


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("eval", ["--episodes", "many"], "--episodes: got 'many', expected a whole number"),
        ("eval", ["--delay-s", "x"], "--delay-s: got 'x', expected a number"),
        ("eval", ["--episode", "3"], "Closest: --episodes"),
        ("eval", ["--policy", "exprt"], "--policy: got 'exprt', expected one of agent, random"),
        ("collect", [], "missing: --out PATH"),
        ("log import", ["video"], "missing: SRC, LOG"),
        ("average", ["a", "b"], "there is no option or argument b"),
    ],
)
def test_a_wrong_argument_is_one_line(command, arguments, message):
    from importlib import import_module

    module, _, name = CLASSES[command].partition(":")
    with pytest.raises(UserError) as caught:
        parse(getattr(import_module(f"wm_nodes.cli.{module}"), name), command, arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
