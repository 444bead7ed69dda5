"""sinfo(1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hpcplan.hostlist import compress, expand
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.data_parser import json_flags, parser_of, say_json
from hpcplan.simulate.commands.formatting import (
    Clock,
    Column,
    Field,
    at_least,
    limit,
    line_of,
    long_date,
    read_long,
    read_percent,
    release,
    short_time,
    spelt_out,
)
from hpcplan.simulate.commands.job_json import say_old
from hpcplan.simulate.commands.json_nodes import gres_in_use, line_document, old_nodes
from hpcplan.simulate.commands.options import Words, flags, read_words, refuse_both, say_cluster, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.scontrol_reservations import reservations_of, sinfo_line
from hpcplan.simulate.commands.scontrol_show import gpus_used, memory_used, nodes_named
from hpcplan.simulate.machine import NodeGroupShape, PartitionShape
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import NodeRecord

__all__ = ["sinfo"]

_TABLE: Final = flags(
    "clusters:M format:o Format:O iterate:i nodes:n partition:p sort:S states:t",
    "all:a dead:d exact:e federation future:F help hide list-reasons:R local long:l Node:N noconvert noheader:h "
    "responding:r summarize:s reservation:T usage verbose:v version:V",
)
_SHORT: Final = "%9P %.5a %.10l %.6D %.6t %N"
_LONG: Final = "%9P %.5a %.10l %.10s %.4r %.8h %.10g %.6D %.11T %N"
_LONG_SINCE_2302: Final = "%9P %.5a %.10l %.10s %.4r %.8h %.10g %.6D %.11T %.11i %N"
_NODES: Final = "%{names}N %.6D %.9P %6t"
_NODES_LONG: Final = "%{names}N %.6D %.9P %.11T %4c %.8z %.6m %.8d %.6w %.8f %20E"
_SUMMARY: Final = "%9P %.5a %.10l %.16F %N"
_REASONS: Final = "%20E %9u %19H %N"
_COMPACT: Final = {
    "allocated": "alloc", "completing": "comp", "down": "down", "drained": "drain", "draining": "drng", "idle": "idle",
    "mixed": "mix", "planned": "plnd", "reserved": "resv", "maint": "maint",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Node:
    """A node in one partition."""

    record: NodeRecord
    group: NodeGroupShape
    part: PartitionShape
    gpus_used: int
    memory_used: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of sinfo: nodes of one partition that are alike in what is shown (none, of an empty partition)."""

    nodes: list[Node]
    part: PartitionShape

    @property
    def first(self) -> Node | None:
        """One of them."""
        return self.nodes[0] if self.nodes else None


def sinfo(controller: Controller, connection: Any, call: Call) -> int:
    """Print partitions and nodes."""
    version = controller.store.settings().slurm_version
    table = (*_TABLE, *json_flags(version))
    words = read_words("sinfo", call.words, table)
    if "help" in words or "usage" in words:
        call.reply.say(usage("sinfo", table))
        return 0
    refuse_both("sinfo", words, ("format", "o"), ("long", "l"))
    states = _states(words)
    with controller.session() as session:
        if "json" in words or "yaml" in words:
            _say_lines(call, session, words, states)
            return 0
        clock = Clock(call.env)
        if "reservation" in words:
            _print_reservations(session, call, clock, header="noheader" not in words)
            return 0
        nodes = _nodes(session)
        fields = _fields(session, clock)
        before, columns = _columns(session, words, call, fields)
        lines = _lines(session, nodes, words, states, columns)
        now = session.engine.now
    say_cluster(call, words)
    if "noheader" not in words:
        if "long" in words:
            call.reply.say(long_date(now))
        call.reply.say(line_of(before, columns, [column.field.header for column in columns]))
    for line in lines:
        call.reply.say(line_of(before, columns, [column.field.value(line) for column in columns]))
    return call.reply.code


def _say_lines(call: Call, session: Session, words: Words, states: set[str] | None) -> None:
    """Print nodes as JSON: 22.05 each of them, later releases by partition those that are alike."""
    parser = parser_of("sinfo", words, session.settings.slurm_version, call)
    if parser is None:
        return
    if parser.is_old:
        say_old(call, words, old_nodes(session))
        return
    parts = set(words.every("partition"))
    alike: dict[tuple[object, ...], Line] = {}
    for node in _nodes(session):
        if _chosen(node, words, states, parts):
            record = node.record
            key = (
                node.part.name, record.state, record.flags, record.cpus, record.cpus_allocated, record.memory_bytes,
                record.gres, node.gpus_used, record.features, record.reason, node.group.weight,
            )  # fmt: skip
            alike.setdefault(key, Line([], node.part)).nodes.append(node)
    documents = [
        line_document(session, line.part, [(node.record, node.group) for node in line.nodes]) for line in alike.values()
    ]
    say_json(call, session, parser, words, documents, "sinfo", times=())


def _print_reservations(session: Session, call: Call, clock: Clock, *, header: bool) -> None:
    found = reservations_of(session)
    if not found:
        call.reply.say("No reservations in the system")
        return
    if header:
        call.reply.say(f"{'RESV_NAME':<10} {'STATE':>8} {'START_TIME':>20} {'END_TIME':>20} {'DURATION':>12}  NODELIST")
    for one in found.values():
        call.reply.say(sinfo_line(session, one, clock))


def _nodes(session: Session) -> list[Node]:
    found = []
    named = {record.name: (record, group) for record, group in nodes_named(session, None)}
    for part in session.machine.partitions.values():
        for name in session.machine.names_of(part.mask):
            record, group = named[name]
            used = gpus_used(session, name) if record.cpus_allocated else 0
            found.append(Node(record, group, part, used, memory_used(session, name)))
    return found


def _states(words: Words) -> set[str] | None:
    known = set(_COMPACT) | {
        "drain",
        "fail",
        "no_respond",
        "unknown",
        "future",
        "power_down",
        "powered_down",
        "planned",
    }
    short = {compact: state for state, compact in _COMPACT.items()}
    found: set[str] = set()
    for word in words.every("states"):
        state = short.get(word.lower(), word.lower())
        if state in {"drain", "drained"} or word.lower() == "drain":
            found |= {"drained", "draining"} if word.lower() == "drain" else {"drained"}
        elif state in known:
            found.add(state)
        elif state != "all":
            raise Refusal(
                f'sinfo: error: Bad state string: "{word}"\nsinfo: error: valid states: unknown,down,idle,allocated,'
                "error,mixed,future,drain,drained,draining,no_respond,reserved,perfctrs,cloud,completing,"
                "powering_down,powered_down,power_down,powering_up,fail,maint,reboot"
            )
    if "dead" in words:
        found.add("down")
    return found or None


def _columns(
    session: Session, words: Words, call: Call, fields: dict[str, Field[Line]]
) -> tuple[str, list[Column[Line]]]:
    if (named := words.last("Format")) is not None:
        return "", read_long(named, {name: fields[key] for name, key in _NAMES.items()}, "sinfo", call)
    default = _SHORT
    if "summarize" in words:
        default = _SUMMARY
    elif "list-reasons" in words:
        default = _REASONS
    elif "Node" in words:
        default = _NODES_LONG if "long" in words else _NODES
    elif "long" in words:
        default = _LONG_SINCE_2302 if at_least(session.settings.slurm_version, "23.02") else _LONG
    longest = max((len(name) for name in session.machine.names), default=0)
    default = default.replace("{names}", str(max(9, longest)))
    plain = not any(name in words for name in ("summarize", "list-reasons", "Node", "long"))
    text = words.last("format") or (call.env.get("SINFO_FORMAT") if plain else None) or default
    text = spelt_out(text, fields, after_capitals=" ")
    return read_percent(text, fields, lambda code: call.reply.complain(f"Invalid node format specification: {code}"))


def _lines(
    session: Session, nodes: list[Node], words: Words, states: set[str] | None, columns: list[Column[Line]]
) -> list[Line]:
    wanted_parts = set(words.every("partition"))
    chosen = [node for node in nodes if _chosen(node, words, states, wanted_parts)]
    parts = [part for name, part in session.machine.partitions.items() if not wanted_parts or name in wanted_parts]
    together_too = _SUMS if "exact" in words else _SUMS | _SIZES
    apart = [column for column in columns if _NAMES.get(column.code, column.code) not in together_too]
    if "Node" in words:
        return [Line([node], node.part) for node in sorted(chosen, key=lambda node: _natural(node.record.name))]
    together: dict[tuple[str, ...], Line] = {}
    by_partition = any(_NAMES.get(column.code, column.code) in set("PRalLshrpIgoM") for column in columns)
    for part in parts:
        mine = [node for node in chosen if node.part is part]
        if not mine and by_partition and not ("list-reasons" in words or words.every("nodes") or "exact" in words):
            together[part.name,] = Line([], part)
        for node in mine:
            one = Line([node], part)
            key = tuple(column.field.value(one) for column in apart)
            if key not in together:
                together[key] = Line([], part)
            if all(other.record.name != node.record.name for other in together[key].nodes):
                together[key].nodes.append(node)
    return sorted(together.values(), key=lambda line: parts.index(line.part) * 1000 + _state_rank(line))


def _state_rank(line: Line) -> int:
    order = [
        "draining", "drained", "completing", "planned", "maint", "reserved", "mixed", "allocated", "idle", "down",
    ]  # fmt: skip
    state = line.first.record.state if line.first else "idle"
    return order.index(state) if state in order else 99


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _chosen(node: Node, words: Words, states: set[str] | None, parts: set[str]) -> bool:
    if parts and node.part.name not in parts:
        return False
    if states is not None and node.record.state not in states:
        return False
    if "list-reasons" in words and not node.record.reason:
        return False
    if "responding" in words and node.record.state == "down":
        return False
    if named := words.every("nodes"):
        try:
            return node.record.name in set(expand(",".join(named)))
        except ValueError:
            return False
    return True


_SUMS: Final = frozenset("ACDFN")  # codes that sum over nodes instead of telling them apart
_SIZES: Final = frozenset("cdemwzOXYZ")  # and those that do so with --exact alone: of several the least is shown


def _fields(session: Session, clock: Clock) -> dict[str, Field[Line]]:
    def one(value: Callable[[Node], str]) -> Callable[[Line], str]:
        return lambda line: value(line.first) if line.first else "n/a"

    def counts(of: Callable[[Node], tuple[int, int, int]]) -> Callable[[Line], tuple[int, int, int, int]]:
        def total(line: Line) -> tuple[int, int, int, int]:
            rows = [of(node) for node in line.nodes]
            used, idle, other = (sum(row[index] for row in rows) for index in range(3))
            return used, idle, other, used + idle + other

        return total

    nodes, cpus = counts(_node_counts), counts(_cpu_counts)
    gres = one(lambda node: node.record.gres or "(null)")
    features = one(lambda node: ",".join(node.record.features) or "(null)")

    def least(of: Callable[[Node], int], after: str = "") -> Callable[[Line], str]:
        def value(line: Line) -> str:
            sizes = {of(node) for node in line.nodes}
            return f"{min(sizes)}{'+' if len(sizes) > 1 else ''}{after}" if sizes else "n/a"

        return value

    def span(of: Callable[[Node], int]) -> Callable[[Line], str]:
        def value(line: Line) -> str:
            sizes = {of(node) for node in line.nodes}
            return "-".join(map(str, sorted({min(sizes), max(sizes)}))) if sizes else "n/a"

        return value

    def cpus_of(node: Node) -> int:
        return node.record.cpus or 0

    table: dict[str, tuple[str, Callable[[Line], str]]] = {
        "a": ("AVAIL", lambda line: "inact" if line.part.state == "inactive" else line.part.state),
        "A": ("NODES(A/I)", lambda line: "{}/{}".format(*nodes(line)[:2])),
        "b": ("ACTIVE_FEATURES", features),
        "B": ("MAX_CPUS_PER_NODE", lambda line: "UNLIMITED"),
        "c": ("CPUS", least(cpus_of)),
        "C": ("CPUS(A/I/O/T)", lambda line: "/".join(map(str, cpus(line)))),
        "d": ("TMP_DISK", one(lambda node: "0")),
        "D": ("NODES", lambda line: str(len(line.nodes))),
        "e": ("FREE_MEM", span(lambda node: ((node.record.memory_bytes or 0) - node.memory_used) // 1024**2)),
        "E": ("REASON", lambda line: (line.first.record.reason if line.first else None) or "none"),
        "f": ("AVAIL_FEATURES", features),
        "F": ("NODES(A/I/O/T)", lambda line: "/".join(map(str, nodes(line)))),
        "g": ("GROUPS", lambda line: "all"),
        "G": ("GRES", gres),
        "h": ("OVERSUBSCRIBE", lambda line: "NO"),
        "H": (
            "TIMESTAMP",
            lambda line: clock.moment(session.started) if line.first and line.first.record.reason else "Unknown",
        ),
        "I": ("PRIO_JOB_FACTOR", lambda line: str(line.part.priority_job_factor)),
        "l": ("TIMELIMIT", lambda line: limit(line.part.max_time_s, short_time, "infinite")),
        "L": ("DEFAULTTIME", lambda line: limit(line.part.default_time_s, short_time, "n/a")),
        "m": ("MEMORY", least(lambda node: (node.record.memory_bytes or 0) // 1024**2)),
        "M": ("PREEMPT_MODE", lambda line: "OFF"),
        "n": ("HOSTNAMES", lambda line: _names(line)),
        "N": ("NODELIST", lambda line: _names(line)),
        "o": ("NODE_ADDR", lambda line: _names(line)),
        "O": ("CPU_LOAD", one(lambda node: "0.00")),
        "p": ("PRIO_TIER", lambda line: str(line.part.priority_tier)),
        "P": ("PARTITION", lambda line: line.part.name + ("*" if line.part.default else "")),
        "r": ("ROOT", lambda line: "no"),
        "R": ("PARTITION", lambda line: line.part.name),
        "s": ("JOB_SIZE", lambda line: _job_size(line.part)),
        "S": ("ALLOCNODES", lambda line: "all"),
        "t": ("STATE", one(lambda node: _COMPACT.get(node.record.state, node.record.state))),
        "T": ("STATE", one(lambda node: node.record.state)),
        "u": ("USER", lambda line: "root" if line.first and line.first.record.reason else "Unknown"),
        "U": ("USER", lambda line: "root(0)" if line.first and line.first.record.reason else "Unknown"),
        "v": ("VERSION", one(lambda node: release(session.settings.slurm_version))),
        "V": ("CLUSTER", lambda line: "N/A"),
        "w": ("WEIGHT", least(lambda node: node.group.weight)),
        "X": ("SOCKETS", least(cpus_of)),
        "Y": ("CORES", one(lambda node: "1")),
        "z": ("S:C:T", least(cpus_of, ":1:1")),
        "Z": ("THREADS", one(lambda node: "1")),
        "gresused": ("GRES_USED", one(_gres_used)),
        "allocmem": ("ALLOCMEM", one(lambda node: str(node.memory_used // 1024**2))),
    }
    if at_least(session.settings.slurm_version, "23.02"):
        table["i"] = ("RESERVATION", lambda line: "")
    return {code: Field(header, value) for code, (header, value) in table.items()}


_NAMES: Final = {
    "available": "a", "nodeai": "A", "nodeaiot": "F", "features_act": "b", "features": "f", "maxcpuspernode": "B",
    "cpus": "c", "cpusstate": "C", "disk": "d", "nodes": "D", "freemem": "e", "reason": "E", "groups": "g", "gres": "G",
    "oversubscribe": "h", "share": "h", "timestamp": "H", "priorityjobfactor": "I", "time": "l", "defaulttime": "L",
    "memory": "m", "preemptmode": "M", "nodehost": "n", "nodelist": "N", "nodeaddr": "o", "cpusload": "O",
    "prioritytier": "p", "partition": "P", "partitionname": "R", "root": "r", "size": "s", "allocnodes": "S",
    "statecompact": "t", "statelong": "T", "user": "u", "userlong": "U", "version": "v", "cluster": "V", "weight": "w",
    "sockets": "X", "cores": "Y", "socketcorethread": "z", "threads": "Z", "gresused": "gresused",
    "allocmem": "allocmem",
}  # fmt: skip


def _node_counts(node: Node) -> tuple[int, int, int]:
    state = node.record.state
    if state in {"allocated", "mixed", "draining", "completing"}:
        return 1, 0, 0
    return (0, 1, 0) if state in {"idle", "planned"} else (0, 0, 1)


def _cpu_counts(node: Node) -> tuple[int, int, int]:
    total, used = node.record.cpus or 0, node.record.cpus_allocated or 0
    if node.record.state in {"down", "drained", "draining"}:
        return used, 0, total - used
    return used, total - used, 0


def _names(line: Line) -> str:
    return compress(sorted((node.record.name for node in line.nodes), key=_natural))


def _job_size(part: PartitionShape) -> str:
    most = "infinite" if part.max_nodes is None else str(part.max_nodes)
    return "1" if most == "1" else f"1-{most}"


def _gres_used(node: Node) -> str:
    return gres_in_use(node.record, node.gpus_used) or "gpu:0"
