"""`wm completion bash`: a script that completes commands, options, graphs and their arguments.

The script holds all words, so that completing starts no Python. It needs bash 4.2 and no package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from wm_nodes.assets import pretrained
from wm_nodes.cli.arguments import parse
from wm_nodes.cli.commands import CLASSES, options_of
from wm_nodes.cli.main import COMMANDS
from wm_nodes.graphs import NAMES, find_graph
from wm_nodes.graphs.graph import GraphError

FILES = "<files>"  # stands for file names
SCRIPT = r"""# completion of wm for bash; made by: wm completion bash
declare -gA _wm_words=(
@WORDS@
)

_wm() {
    # The words as typed: bash itself breaks them at : and =, as in task:=reach-v3.
    local line="${COMP_LINE:0:COMP_POINT}" key next word cut
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local current="${words[-1]}" previous="${words[-2]:-}"
    key="wm"
    for word in "${words[@]:1:${#words[@]}-2}"; do
        next="$key $word"
        [[ "$word" != -* && -n "${_wm_words[$next]+is}" ]] && key="$next"
    done
    local offered="${_wm_words[$key]}" prefix=""
    if [[ "$current" == *:=* ]]; then
        prefix="${current%%:=*}:="
        offered="${_wm_words[$key $prefix]:-@FILES@}"
    elif [[ "$previous" == --* && -n "${_wm_words[$key $previous]+is}" ]]; then
        offered="${_wm_words[$key $previous]}"
    fi
    local typed="${current#"$prefix"}"
    mapfile -t COMPREPLY < <(compgen -W "${offered//@FILES@/}" -- "$typed")
    if [[ "$offered" == *"@FILES@"* ]]; then
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$typed")
        compopt -o filenames 2> /dev/null
    fi
    # What readline replaces begins behind the last : or = that breaks words.
    if [[ -n "$prefix" && "$COMP_WORDBREAKS" != *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]/#/$prefix}")
    elif [[ -z "$prefix" && "$typed" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        cut="${typed%"${typed##*:}"}"
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
    compopt +o nospace 2> /dev/null
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *= ]] && compopt -o nospace 2> /dev/null
}
complete -F _wm wm
"""


@dataclass(frozen=True)
class Completion:
    """Print a script that completes `wm` in a shell: commands, options, graphs, their arguments,
    tasks, models and the names of shipped weights.

    Load it into this shell as below, or keep it where bash-completion looks for it.
    """

    shell: Annotated[Literal["bash"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")]
    """bash."""


def run(words: Sequence[str]) -> int:
    """Run `wm completion WORDS`."""
    parse(Completion, "completion", words)
    print(script(), end="")
    return 0


def script() -> str:
    """Return the script for bash."""
    rows = (
        f"    ['{f'wm {key}'.strip()}']='{' '.join(words)}'" for key, words in offered().items()
    )
    return SCRIPT.replace("@WORDS@", "\n".join(rows)).replace("@FILES@", FILES)


def offered() -> Mapping[str, Sequence[str]]:
    """Return the words that may follow a command ("", "eval", "log info", "launch replay"), a
    command and option ("eval --planner"), or a graph and argument ("launch replay planner:=")."""
    words: dict[str, Sequence[str]] = {"": (*COMMANDS, "--help", "--version")}
    for command in CLASSES:
        group, _, name = command.rpartition(" ")
        if group:
            words[group] = (*words.get(group, ()), name)
        words |= dict(_of_command(command))
    words["completion"] = ("bash", "--help")
    words["launch"] = (*NAMES, "--help")
    for name in NAMES:
        words |= dict(_of_graph(name))
    return words


def _of_command(command: str) -> Iterator[tuple[str, Sequence[str]]]:
    known = options_of(command)
    words = [word for option in known for word in option.words] + ["--help"]
    files = any(option.positional and option.path for option in known)
    yield command, (*words, FILES) if files else words
    for option in known:
        if not option.positional and not option.switch:
            values = _values(option.name, option.choices)
            is_file = option.path or option.metavar == "TEXT"
            yield f"{command} {option.name}", values or ([FILES] if is_file else [])


def _of_graph(name: str) -> Iterator[tuple[str, Sequence[str]]]:
    try:
        arguments = find_graph(name).arguments
    except GraphError:
        return  # a broken file: its name alone is completed
    yield f"launch {name}", (*(f"{argument.name}:=" for argument in arguments), "--show-args")
    for argument in arguments:
        switch = ("true", "false") if isinstance(argument.default, bool) else argument.choices
        if values := _values(f"--{argument.name}", tuple(filter(None, switch))):
            yield f"launch {name} {argument.name}:=", values


def _values(option: str, choices: Sequence[str]) -> Sequence[str]:
    """Return the values of an option: its choices, or names that other modules list."""
    if option == "--weights":
        return (*pretrained(), FILES)
    if option == "--robot" and not choices:
        from wm_nodes.robots.registry import SIMULATED

        return (*SIMULATED, FILES)
    if option == "--model":
        from wm_models.registry import SUMMARIES

        return tuple(SUMMARIES)
    if option == "--task" and not choices:
        from wm_nodes.robots.registry import SIMULATED

        return tuple(task for robot in SIMULATED.values() for task in robot.tasks)
    return choices
