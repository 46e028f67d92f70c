"""Write the reference of the command line from the click commands. `make reference` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from kdedge.cli.bench_compare import compare
from kdedge.cli.main import cli

HEADER = """# Command line

Results go to stdout, progress and messages to stderr. `--json` adds one JSON document as the last
line of stdout. `kdedge COMMAND --help` prints what this page lists.
"""

EXIT_CODES = """## Exit codes

| code | meaning |
| --: | --- |
| 0 | success |
| 1 | a check failed: parity, agreement, a loss that is not finite |
| 2 | usage: an option, an argument or the recipe is wrong |
| 3 | data: texts or labels are malformed or contradict each other |
| 4 | machine: a package, a provider, memory, disk space or the network is missing |
| 5 | integrity: a file is not the one that kdedge wrote |
| 70 | an unexpected error of kdedge or a library; a report file is named |
| 130 | interrupted by SIGINT (Ctrl-C); the work is saved |
| 143 | interrupted by SIGTERM; the work is saved |

Each error has three parts: a message, a detail, and a hint that says what to do.
[Troubleshooting](../troubleshooting.md) lists the common ones.
"""

SHOWN_RUN = "Example: "


def cli_reference() -> str:
    """Write the page as Markdown."""
    parts = [HEADER]
    context = click.Context(cli, info_name="kdedge")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts.append(_section(name, command))
        if name == "bench":
            parts.append(_section("bench compare", compare))
    parts.append(EXIT_CODES)
    return "\n".join(parts)


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"kdedge {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    text, examples = _help_parts(command)
    lines = [
        f"## `kdedge {name}`",
        "",
        escaped(text),
        "",
        "```text",
        f"kdedge {name} {usage}",
        "```",
    ]
    lines += [""]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            lines += _option_lines(name, parameter, context)
    if examples:
        lines += ["", "Examples:", "", "```sh", *examples, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _help_parts(command: click.Command) -> tuple[str, list[str]]:
    """Split a command's help into its text and its example lines."""
    lines, examples = [], []
    for line in inspect.cleandoc(command.help or "").replace("\b", "").splitlines():
        if line.startswith(SHOWN_RUN):
            examples.append(line.removeprefix(SHOWN_RUN))
        else:
            lines.append(line)
    return "\n".join(lines).strip(), examples


def _option_lines(name: str, option: click.Option, context: click.Context) -> Iterator[str]:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    anchor = f'<a id="{name.replace(" ", "-")}-{option.opts[0].lstrip("-")}"></a>'
    values = _values(option, context)
    yield f"- {anchor}{flags} {values}".rstrip() + ":"
    text = escaped(option.help or "").strip()
    yield f"  {text} {_default(option, context)}".rstrip()


def _values(option: click.Option, context: click.Context) -> str:
    """Name the values that follow an option; empty for a flag."""
    if option.is_flag:
        return ""
    metavar = option.make_metavar(context).removesuffix(" RANGE")
    if isinstance(option.type, click.Choice):
        metavar = " | ".join(map(str, option.type.choices))
    return f"`{metavar}` "


def _default(option: click.Option, context: click.Context) -> str:
    if not option.show_default:
        return ""
    extra = option.get_help_extra(context).get("default", "")
    return f"Default: `{extra}`." if extra else ""


def escaped(text: str) -> str:
    """Escape what Markdown would read as markup, outside of code spans."""
    parts = re.split(r"(`[^`]*`)", text)
    for position in range(0, len(parts), 2):
        parts[position] = re.sub(r"([\[\]<>*_])", r"\\\1", parts[position])
    return "".join(parts)
