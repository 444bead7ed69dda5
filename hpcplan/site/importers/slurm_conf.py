"""slurm.conf: nodes, partitions and the settings that a planner needs (slurm.conf(5))."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcplan.errors import Problem, nearest
from hpcplan.hostlist import MAX_HOSTS
from hpcplan.site.importers.findings import Devices, Figure, Findings, NodesFound, Place, SchedulerFound, few
from hpcplan.site.importers.policy_keys import partition_found, scheduler_found
from hpcplan.site.importers.slurm_lines import ConfLine, Reader

__all__ = ["PARTITION_KEYS", "SlurmConfParser", "parse_gres", "read_slurm_conf"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The keys that may stand on these lines, over all versions (slurm.conf(5), NODE and PARTITION CONFIGURATION).
_NODE_KEYS: Final = _words("""
arch bcastaddr boards boardspermachine cores corespecount corespersocket cpubind cpus cpuspeclist feature
features frequency gres memspeclimit nodeaddr nodehostname nodename parameters port procs realmemory reason
restrictedcorespergpu sockets socketsperboard state threadspercore tmpdisk topology tres tresweights weight
""")
PARTITION_KEYS: Final = _words("""
allocnodes allowaccounts allowgroups allowqos alternate cpubind default defaulttime defcpupergpu defmempercpu
defmempergpu defmempernode denyaccounts denyqos disablerootjobs exclusivetopo exclusiveuser gracetime hidden
jobdefaults lln maxcpuspernode maxcpuspersocket maxmempercpu maxmempernode maxnodes maxtime minnodes nodes
oversubscribe overtimelimit partitionname powerdownonidle preemptmode priority priorityjobfactor prioritytier
qos reqresv resumetimeout rootonly selecttypeparameters shared state suspendtime suspendtimeout topology
tresbillingweights
""")
_GRES: Final = re.compile(r"([^:(]+)(?::([^:(]+))?(?::([^:(]+))?(?:\(.*\))?$")
_COUNT: Final = re.compile(r"([0-9]{1,12})([kKmMgGtT]?)")
_OUT: Final = re.compile(r"DOWN(?!_)|DRAIN|FAIL|ERROR")  # POWERED_DOWN and POWERING_DOWN nodes take jobs
_MIG: Final = re.compile(r"[1-7]g\.\d+gb(?:\.me)?")
_SLICES: Final = 7  # of a GPU that MIG divides (NVIDIA Multi-Instance GPU User Guide, "Partitioning")
_SCALE: Final[Mapping[str, int]] = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def read_slurm_conf(path: Path) -> Findings:
    """Read slurm.conf and the files that it includes.

    Raises:
        InputError: a line that Slurm could not read either: not ``Key=Value``, no hostlist, a number that is none.
    """
    reader = Reader()
    parser = SlurmConfParser(reader.problems)
    for line in reader.read(path):
        parser.take(line)
    return parser.findings(str(path))


def parse_gres(value: str) -> dict[str, list[Devices]]:
    """Return the devices of a node's ``Gres=`` by name: ``gpu:h100:8(S:0-1),nvme:1``.

    Raises:
        ValueError: an element is not ``name[:type][:count]``.
    """
    found: dict[str, list[Devices]] = {}
    for element in re.split(r",(?![^(]*\))", value):
        match = _GRES.fullmatch(element.strip())
        if match is None:
            raise ValueError(f"{element!r} is not name[:type][:count]")
        words = [word for word in match.groups()[1:] if word is not None and word != "no_consume"]
        count = 1
        if words and (number := _COUNT.fullmatch(words[-1])):
            count = int(number[1]) * _SCALE[number[2].lower()]
            words.pop()
        if len(words) > 1:
            raise ValueError(f"{element!r} ends in {words[-1]!r}, which is not a count")
        found.setdefault(match[1].lower(), []).append(Devices(count, words[0].lower() if words else None))
    return found


class SlurmConfParser:
    """Gathers what the lines say; DEFAULT lines change what those after them mean."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.node_defaults: dict[str, str] = {}
        self.partition_defaults: dict[str, str] = {}
        self.nodes: list[NodesFound] = []
        self.partition_lines: dict[str, ConfLine] = {}
        self.sets: dict[str, tuple[str, ...]] = {}
        self.set_lines: list[ConfLine] = []
        self.settings: dict[str, tuple[str, ConfLine]] = {}
        self.first_line: dict[str, int | None] = {}
        self.drained: dict[str, None] = {}
        self.total = 0

    def take(self, line: ConfLine) -> None:
        """Take one line in."""
        match line.first:
            case "nodename":
                self._node(line)
            case "partitionname":
                self._partition(line)
            case "downnodes":
                hosts = line.place.hosts(line.pairs["downnodes"], "DownNodes")
                state = line.get("state") or "DOWN"
                self._drain(line, hosts, state)
            case "nodeset":
                self.set_lines.append(line)
            case "switchname" | "blockname" | "blocksizes" | "ringname":
                raise line.error(line.first, "is a line of topology.conf; give that with --topology")
            case "name" | "autodetect":
                raise line.error(line.first, "is a line of gres.conf; give that with --gres")
            case _:
                for key, value in line.pairs.items():
                    self.settings[key] = (value, line)

    def _known(self, line: ConfLine, known: frozenset[str]) -> None:
        for key in line.pairs.keys() - known:
            message = "unknown key; it is ignored" + nearest(key, known)
            self.problems.append(line.place.problem(message, line.spelling[key]))

    def _node(self, line: ConfLine) -> None:
        self._known(line, _NODE_KEYS)
        if line.pairs["nodename"].upper() == "DEFAULT":
            self.node_defaults |= {key: value for key, value in line.pairs.items() if key != "nodename"}
            return
        whole = ConfLine(line.place, {**self.node_defaults, **line.pairs}, line.spelling)
        self.take_nodes(whole, line.place.hosts(line.pairs["nodename"], "NodeName"))

    def take_nodes(self, line: ConfLine, names: Sequence[str]) -> None:
        """Take in nodes that are all as the line says, defaults included."""
        state = (line.get("state") or "UNKNOWN").upper()
        self.total += len(names)
        if self.total > MAX_HOSTS:
            raise line.error("nodename", f"the file names more than {MAX_HOSTS:,} nodes")
        if state.startswith("FUTURE"):
            self.problems.append(line.place.note(f"nodes that are FUTURE: {few(names)}; they are left out"))
            return
        fresh: dict[str, int | None] = {}
        again: list[str] = []
        for name in names:
            if name in self.first_line or name in fresh:
                again.append(name)
            else:
                fresh[name] = line.place.line
        self.first_line |= fresh
        if again:
            first = self.first_line[again[0]]
            message = f"node {again[0]!r} is defined again; first on line {first}, which counts"
            self.problems.append(line.place.problem(message, "NodeName"))
        if fresh:
            self.nodes.append(self._described(tuple(fresh), line))
            self.take_state(line, tuple(fresh), state)

    def take_state(self, line: ConfLine, hosts: Sequence[str], state: str) -> None:
        """Take in the state of nodes; those that take no jobs are reported as drained."""
        if _OUT.search(state):
            self._drain(line, hosts, state)

    def _drain(self, line: ConfLine, hosts: Sequence[str], state: str) -> None:
        self.drained |= dict.fromkeys(hosts)
        self.problems.append(line.place.note(f"nodes that are {state}: {few(hosts)}; they stand under 'drained'"))

    def _described(self, names: tuple[str, ...], line: ConfLine) -> NodesFound:
        origin = line.place.origin
        memory = line.whole("realmemory")
        features = tuple(word for word in re.split(r"[,\s]+", line.get("features", "feature") or "") if word)
        sockets, cpus = self._processors(line)
        return NodesFound(
            names,
            line.place,
            cpus=Figure(cpus, origin) if cpus else None,
            memory_bytes=Figure(memory * 1024**2, origin) if memory else None,
            sockets=Figure(sockets, origin) if sockets else None,
            gpus=self._gpus(line),
            features=Figure(features, origin) if features else None,
            weight=Figure(weight, origin) if (weight := line.whole("weight")) else None,
            gres=self._other_gres(line),
        )

    def _other_gres(self, line: ConfLine) -> Figure[tuple[tuple[str, int], ...]] | None:
        try:
            kinds = parse_gres(line.get("gres") or "") if line.get("gres") not in (None, "(null)") else {}
        except ValueError:
            return None  # the GPUs' reader says what is wrong
        counts = [(name, sum(kind.count for kind in devices)) for name, devices in kinds.items() if name != "gpu"]
        others = tuple((name, count) for name, count in counts if count)
        return Figure(others, line.place.origin) if others else None

    def _processors(self, line: ConfLine) -> tuple[int | None, int | None]:
        """Return (sockets, CPUs) of a node: what the line says, else boards x sockets x cores x threads."""
        boards, threads = line.whole("boards") or 1, line.whole("threadspercore") or 1
        sockets, cores = line.whole("sockets"), line.whole("corespersocket")
        if sockets is None and (a_board := line.whole("socketsperboard")) is not None:
            sockets = boards * a_board
        stated = line.whole("cpus", "procs")
        product = (sockets or 1) * (cores or 1) * threads
        if sockets is None and cores is None:
            return None, stated
        cores_only = product // threads
        if stated is not None and sockets is not None and cores is not None and stated not in (product, cores_only):
            message = f"CPUs={stated}, but sockets x cores x threads make {product}; CPUs counts"
            self.problems.append(line.place.problem(message, "CPUs"))
        return sockets, stated if stated is not None else product

    def _gpus(self, line: ConfLine) -> Figure[Devices] | None:
        value = line.get("gres")
        if not value or value == "(null)":
            return None
        try:
            kinds = parse_gres(value).get("gpu", [])
        except ValueError as error:
            raise line.error("gres", str(error)) from None
        if not kinds or not sum(kind.count for kind in kinds):
            return None
        whole = [kind for kind in kinds if not _MIG.search(kind.type or "")]
        mig = tuple((match[0], kind.count) for kind in kinds if (match := _MIG.search(kind.type or "")))
        most = max(whole or kinds, key=lambda kind: kind.count)
        if len({kind.type for kind in whole}) > 1:
            message = f"several kinds of GPU in one node; all are taken for {most.type or 'the first kind'}"
            self.problems.append(line.place.note(message, "Gres"))
        count = sum(kind.count for kind in whole)
        if mig:
            divided = math.ceil(sum(int(profile[0]) * number for profile, number in mig) / _SLICES)
            self.problems.append(line.place.note(f"MIG instances are taken for {divided} whole GPUs", "Gres"))
            count += divided
        kind = _MIG.sub("", most.type or "").strip("._-") or None
        return Figure(Devices(count, kind, mig), line.place.origin)

    def _partition(self, line: ConfLine) -> None:
        self._known(line, PARTITION_KEYS)
        if line.pairs["partitionname"].upper() == "DEFAULT":
            self.partition_defaults |= {key: value for key, value in line.pairs.items() if key != "partitionname"}
            return
        whole = ConfLine(line.place, {**self.partition_defaults, **line.pairs}, line.spelling)
        name = whole.pairs["partitionname"]
        if self.partition_lines.setdefault(name, whole) is not whole:
            message = f"partition {name!r} is defined again; the first counts"
            self.problems.append(line.place.problem(message, "PartitionName"))

    def _node_sets(self) -> None:
        for line in self.set_lines:
            feature = line.get("feature")
            names = [
                name
                for found in self.nodes
                if feature and found.features and feature in found.features.value
                for name in found.names
            ]
            if (hostlist := line.get("nodes")) is not None:
                names += line.place.hosts(hostlist, "Nodes")
            self.sets[line.pairs["nodeset"]] = tuple(dict.fromkeys(names))

    def _members(self, line: ConfLine) -> tuple[str, ...] | None:
        hostlist = line.get("nodes")
        if hostlist is None:
            self.problems.append(line.place.problem("the partition has no Nodes; it is left out", "Nodes"))
            return ()
        if hostlist.upper() == "ALL":
            return None
        names: dict[str, None] = {}
        for name in line.place.hosts(hostlist, "Nodes"):
            if name.upper() == "ALL":
                return None
            names |= dict.fromkeys(self.sets.get(name, (name,)))
        return tuple(names)

    def _scheduler(self) -> SchedulerFound | None:
        values = {key: value for key, (value, _) in self.settings.items()}
        return scheduler_found(values, _origin_of(self.settings))

    def findings(self, source: str) -> Findings:
        """Return everything."""
        self._node_sets()
        lines = self.partition_lines.values()
        partitions = [partition_found(line, self._members(line), self.problems) for line in lines]
        name = self.settings.get("clustername")
        select = self.settings.get("selecttype")
        return Findings(
            source,
            cluster=Figure(name[0], name[1].place.origin) if name else None,
            nodes=tuple(self.nodes),
            partitions=tuple(found for found in partitions if found.nodes is None or found.nodes),
            shared_nodes=_shared(select[0]) if select else None,
            topology_plugin=_has_tree(self.settings),
            dragonfly=_is_dragonfly(self.settings),
            scheduler=self._scheduler(),
            drained=tuple(name for name in self.drained if name in self.first_line),
            problems=tuple(self.problems),
        )


def _origin_of(settings: Mapping[str, tuple[str, ConfLine]]) -> str:
    line = next(
        (line for key, (_, line) in settings.items() if key.startswith(("scheduler", "priority", "preempt"))), None
    )
    return Place(line.place.file).origin if line is not None else ""


def _shared(select_type: str) -> bool | None:
    word = select_type.lower().removeprefix("select/")
    return True if word.startswith("cons_") else False if word == "linear" else None


def _has_tree(settings: Mapping[str, tuple[str, ConfLine]]) -> bool:
    plugin = settings.get("topologyplugin")
    return plugin is not None and plugin[0].lower().removeprefix("topology/") in ("tree", "block")


def _is_dragonfly(settings: Mapping[str, tuple[str, ConfLine]]) -> bool:
    param = settings.get("topologyparam")
    return param is not None and "dragonfly" in param[0].lower().split(",")
