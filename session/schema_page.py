"""The schema as a Markdown page for the documentation."""

import sys

from session.schema import GROUPS, ROOT, SCHEMA_NAME, SCHEMA_VERSION
from session.spec import Group


def reference_page() -> str:
    """Render the table as a Markdown page."""
    lines = [
        f"# Session file, schema `{SCHEMA_NAME}` {SCHEMA_VERSION}",
        "",
        "HDF5 in the default file format. SI units; integer nanoseconds for stamps; a"
        " positive current charges the cell. Each group carries `NX_class`, each"
        " dataset `units`; tables carry `signal` and `axes`, and `default` leads from"
        " the root to the first plot.",
        "",
        f"Attributes of `/`: `schema` (`{SCHEMA_NAME}`), `schema_version`"
        f" (`{SCHEMA_VERSION}`), `creator`, `file_time`, `default`.",
        "",
        "Columns marked *provisional* are written again after the run; all others are"
        " raw and stay. A stamp that was never written holds -2^63.",
        "",
        "In a finished session each group and dataset carries `seal`, two CRC-32 (of its"
        " values and of its attributes), and each group `seal_holds`, the names in it as JSON"
        " (zeros and nothing until then).",
    ]
    for group in GROUPS:
        lines += _group_section(group)
    return "\n".join(lines) + "\n"


def _group_section(group: Group) -> list[str]:
    lines = [
        "",
        f"## `/{ROOT}{'/' if group.path else ''}{group.path}`",
        "",
        f"`{group.nx_class}`: {group.meaning}.",
    ]
    if group.columns or group.attributes:
        lines += [
            "",
            "| name | dtype | shape | unit | meaning |",
            "|---|---|---|---|---|",
        ]
    for attribute in group.attributes:
        a = attribute
        lines.append(f"| `@{a.name}` | {a.dtype} | | {a.unit} | {a.meaning} |")
    for column in group.columns:
        notes = ("" if column.required else " (optional)") + (
            " (*provisional*)" if column.provisional else ""
        )
        lines.append(
            f"| `{column.name}` | {column.dtype.lstrip('<|')} | {column.shape} "
            f"| {column.unit} | {column.meaning}{notes} |"
        )
    if group.free_columns:
        lines += ["", "More columns may stand here."]
    return lines


if __name__ == "__main__":
    sys.stdout.write(reference_page())
