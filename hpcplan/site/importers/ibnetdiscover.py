"""What ``ibnetdiscover`` prints: switches, hosts and every cable with its width and speed (ibnetdiscover(8))."""

from __future__ import annotations

import io
import re
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem
from hpcplan.site.importers.findings import Figure, Findings, LinkFound, NicsFound, NodesFound, Place, SwitchFound
from hpcplan.units import format_bandwidth

__all__ = ["lane_bytes_per_s", "read_ibnetdiscover"]

_MAX_BYTES: Final = 256 * 1024**2  # ten thousand hosts of eight adapters take 30 MB
_HEAD: Final = re.compile(r'(Switch|Ca|Rt)\s+(\d+)\s+"([^"]+)"\s*#\s*"([^"]*)"')
_PORT: Final = re.compile(
    r'\[(\d+)\](?:\[ext \d+\])?(?:\([0-9a-fA-F]+\))?\s+"([^"]+)"\[(\d+)\](?:\[ext \d+\])?(?:\([0-9a-fA-F]+\))?(.*)'
)
_SPEED: Final = re.compile(r"\b(\d{1,2})x([A-Z]{3}[0-9]*)\b")
_GUID_LINE: Final = re.compile(
    r"(vendid|devid|sysimgguid|switchguid|caguid|rtguid)=\S+(\s*#.*)?|DR path .*|#.*|(Non-)?Chassis .*"
)
_COMPLAINT: Final = re.compile(r"(ibwarn|ibpanic|ibnetdiscover|src/\S+|\S+\.c):.*")  # its stderr, into the same file
_OTHER_OUTPUT: Final = re.compile(r"(CA|SW|RT|DIFF)\s+\d+\s+\d+\s+0x|(Ca|Switch|Rt)\s*:\s*0x")  # of -p and of -l

# Data rate of one lane in Gb/s after encoding (InfiniBand Architecture Specification, volume 2): SDR to QDR lose a
# fifth to 8b/10b; from FDR on the figure is what the product names say of four lanes (56, 100, 200, 400, 800).
_LANE_GB_PER_S: Final = {
    "SDR": 2.0, "DDR": 4.0, "QDR": 8.0, "FDR10": 10.0, "FDR": 13.64, "EDR": 25.0, "HDR": 50.0, "NDR": 100.0,
    "XDR": 200.0,
}  # fmt: skip

# A switch whose links to switches outnumber those to hosts so far is a spine that a management host hangs on.
_SPINE_RATIO: Final = 10


def lane_bytes_per_s(speed: str) -> float | None:
    """Return bytes/s of one lane for ``NDR``, ``HDR``, …; ``None`` for an unknown word."""
    rate = _LANE_GB_PER_S.get(speed)
    return None if rate is None else rate * 1e9 / 8


@dataclass(slots=True)
class _Device:
    kind: str
    guid: str
    name: str
    line: int
    # our port: GUID of the other end and bytes/s
    ports: dict[int, tuple[str, float]] = field(default_factory=dict)


def read_ibnetdiscover(path: Path) -> Findings:
    """Read the output of ``ibnetdiscover``.

    A host is what stands before the last word of an adapter's description (``node01 mlx5_0``); aggregation nodes
    inside switches are none, and adapters that still have their factory description are counted and left out.

    Raises:
        InputError: a line that ibnetdiscover does not print, or no switch at all.
    """
    return parse_ibnetdiscover(read_text(path, max_bytes=_MAX_BYTES), path)


def parse_ibnetdiscover(text: str, path: Path) -> Findings:
    """As :func:`read_ibnetdiscover`, for a text that came from ``path``."""
    problems: list[Problem] = []
    devices = _devices(text, path, problems)
    fabric = _Fabric(devices, path, problems)
    if not fabric.switches:
        found = f"{len(devices)} adapters" if devices else "nothing that ibnetdiscover prints"
        raise InputError(Problem(f"no switch is in it, but {found}; is the output complete?", file=str(path)))
    return fabric.findings()


def _devices(text: str, path: Path, problems: list[Problem]) -> dict[str, _Device]:
    devices: dict[str, _Device] = {}
    current: _Device | None = None
    unknown_speeds: Counter[str] = Counter()
    named: dict[str, _Device] = {}
    complaints: list[int] = []
    for number, raw in enumerate(io.StringIO(text), start=1):
        line = raw.strip()
        if not line or _GUID_LINE.fullmatch(line):
            continue
        if _COMPLAINT.fullmatch(line):
            complaints.append(number)
            continue
        if (head := _HEAD.match(line)) is not None:
            current = _Device(head[1], head[3], head[4].strip(), number)
            if current.guid in devices:
                first = devices[current.guid].line
                problems.append(
                    Place(str(path), number).problem(f"{current.guid!r} stands twice, first on line {first}")
                )
            devices[current.guid] = current
        elif (port := _PORT.match(line)) is not None and current is not None:
            speed = _SPEED.search(port[4].rsplit('"', 1)[-1])
            lane = lane_bytes_per_s(speed[2]) if speed else None
            if lane is None:
                unknown_speeds[speed[0] if speed else "none"] += 1
            bandwidth = (lane or 0.0) * int(speed[1] if speed else 0)
            current.ports[int(port[1])] = (port[2], bandwidth)
            if current.kind == "Switch" and port[2].startswith("H-"):
                text_there = re.search(r'#\s*"([^"]*)"', port[4])
                adapter = named.setdefault(port[2], _Device("Ca", port[2], "", number))
                adapter.name = text_there[1].strip() if text_there else ""
                adapter.ports[int(port[3])] = (current.guid, bandwidth)
        elif devices and not raw.endswith("\n"):
            problems.append(Problem("the output is cut in this line", file=str(path), line=number))
        else:
            shown = line if len(line) <= 50 else line[:47] + "..."
            hint = "give its output without -p and -l" if _OTHER_OUTPUT.match(line) else None
            raise InputError(
                Problem(f"is not a line of ibnetdiscover: {shown!r}", file=str(path), line=number), hint=hint
            )
    if complaints:
        message = f"ibnetdiscover complains on {len(complaints)} lines; parts of the fabric may be missing"
        problems.append(Problem(message, file=str(path), line=complaints[0]))
    for word, count in unknown_speeds.items():
        problems.append(Problem(f"{count} ports say no speed that is known ({word}); they count 0", file=str(path)))
    undescribed = {guid: adapter for guid, adapter in named.items() if guid not in devices}
    if undescribed:
        message = f"{len(undescribed)} adapters are named by switches alone; is the output cut?"
        problems.append(Problem(message, file=str(path)))
    return {**devices, **undescribed}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")


class _Fabric:
    """The devices as switches, hosts and cables between them."""

    def __init__(self, devices: dict[str, _Device], path: Path, problems: list[Problem]) -> None:
        self.devices, self.path, self.problems = devices, path, problems
        self.switches = {guid: device for guid, device in devices.items() if device.kind == "Switch"}
        self.names = self._switch_names()
        self.host_ports: dict[str, dict[str, list[tuple[str, float]]]] = {}  # host: switch: (interface, bytes/s)
        self._hosts()
        self._shorten()
        self.level = self._levels()

    def _switch_names(self) -> dict[str, str]:
        """Return short names: ``IBLEAF-01`` of ``MF0;IBLEAF-01:MQM9701/U1``.

        Where two would be the same, as the chips of one chassis, the whole description is taken, or the GUID added.
        """
        whole = {guid: re.sub(r"^MF0;", "", device.name) for guid, device in self.switches.items()}
        short = {guid: _plain(re.sub(r":[^:]*$", "", name)) or guid for guid, name in whole.items()}
        often, whole_often = Counter(short.values()), Counter(_plain(name) for name in whole.values())
        names: dict[str, str] = {}
        for guid, name in short.items():
            unique = often[name] == 1 or whole_often[_plain(whole[guid])] == 1
            names[guid] = (name if often[name] == 1 else _plain(whole[guid])) if unique else f"{name}-{guid[-6:]}"
        return names

    def _hosts(self) -> None:
        nameless = 0
        for guid, device in self.devices.items():
            if device.kind != "Ca" or "Aggregation Node" in device.name:
                continue
            words = device.name.split()
            interface = words[1] if len(words) == 2 else None
            if (interface is None and len(words) != 1) or words[0] == "localhost":
                nameless += 1
                continue
            for other, bandwidth in device.ports.values():
                if other in self.switches:
                    links = self.host_ports.setdefault(words[0], {}).setdefault(other, [])
                    links.append((interface or guid, bandwidth))
        if nameless:
            message = f"{nameless} adapters have no host's name in their description; they are left out"
            self.problems.append(Problem(message, file=str(self.path)))

    def _shorten(self) -> None:
        """Drop the domains of full host names, which Slurm's names of nodes have not, where that leaves them apart."""
        short = {host: host.split(".")[0] for host in self.host_ports}
        if len(set(short.values())) == len(short) and all(short.values()):
            self.host_ports = {short[host]: below for host, below in self.host_ports.items()}

    def _slow_cables(self) -> None:
        """Say which cables came up slower than those beside them: a fault, or a plug that sits badly."""
        for host, below in self.host_ports.items():
            self._compare(host, [(self.names[guid], rate) for guid, links in below.items() for _, rate in links])
        for guid, device in self.switches.items():
            cables = [(self.names[other], rate) for other, rate in device.ports.values() if other in self.switches]
            self._compare(self.names[guid], [(other, rate) for other, rate in cables if other > self.names[guid]])

    def _compare(self, end: str, cables: list[tuple[str, float]]) -> None:
        rates = Counter(rate for _, rate in cables if rate)
        if len(rates) < 2:
            return
        usual = max(rates, key=lambda rate: (rates[rate], rate))
        slow: dict[tuple[str, float], int] = Counter((other, rate) for other, rate in cables if 0 < rate < usual)
        for (other, rate), count in slow.items():
            what = "1 cable runs" if count == 1 else f"{count} cables run"
            slow_rate, usual_rate = format_bandwidth(rate), format_bandwidth(usual)
            message = f"{what} at {slow_rate} between {end} and {other}, others at {usual_rate}"
            self.problems.append(Place(str(self.path)).note(message))

    def _levels(self) -> dict[str, int]:
        """Return each switch's level: 1 where hosts are, else one more than the lowest neighbour."""
        to_hosts: Counter[str] = Counter()
        for switches in self.host_ports.values():
            for guid, links in switches.items():
                to_hosts[guid] += len(links)
        neighbours = {guid: self._neighbours(guid) for guid in self.switches}
        level = {
            guid: 1
            for guid in self.switches
            if to_hosts[guid] and to_hosts[guid] * _SPINE_RATIO >= sum(neighbours[guid].values())
        }
        queue = deque(level)
        while queue:
            guid = queue.popleft()
            for other in neighbours[guid]:
                if other not in level:
                    level[other] = level[guid] + 1
                    queue.append(other)
        return level

    def _neighbours(self, guid: str) -> Counter[str]:
        return Counter(other for other, _ in self.switches[guid].ports.values() if other in self.switches)

    def findings(self) -> Findings:
        """Return everything."""
        origin = f"from {self.path.name}"
        switches, spine_hosts = [], 0
        nodes_of: dict[str, list[str]] = {}
        for host, below in self.host_ports.items():
            for guid in below:
                if self.level.get(guid) == 1:
                    nodes_of.setdefault(guid, []).append(host)
                else:
                    spine_hosts += 1
        if spine_hosts:
            message = f"{spine_hosts} hosts hang on switches above the leaves; those cables are left out"
            self.problems.append(Problem(message, file=str(self.path)))
        children, links = self._cables(origin)
        self._slow_cables()
        for guid, device in self.switches.items():
            place = Place(str(self.path), device.line)
            below_names = tuple(self.names[child] for child in children.get(guid, ()))
            switches.append(SwitchFound(self.names[guid], place, tuple(nodes_of.get(guid, ())), below_names))
        return Findings(
            str(self.path),
            nodes=tuple(self._nodes(origin, {host for hosts in nodes_of.values() for host in hosts})),
            switches=tuple(switches),
            links=tuple(links),
            rails=True,
            problems=tuple(self.problems),
        )

    def _cables(self, origin: str) -> tuple[dict[str, list[str]], list[LinkFound]]:
        children: dict[str, list[str]] = {}
        links: list[LinkFound] = []
        level_ties = 0
        for guid, device in self.switches.items():
            cables: dict[str, list[float]] = {}
            for other, bandwidth in device.ports.values():
                if other in self.switches:
                    cables.setdefault(other, []).append(bandwidth)
            for other, bandwidths in cables.items():
                here, there = self.level.get(guid, 0), self.level.get(other, 0)
                if here == there:
                    level_ties += 1
                elif here < there:
                    children.setdefault(other, []).append(guid)
                    names = self.names[guid], self.names[other]
                    links.append(LinkFound(*names, len(bandwidths), sum(bandwidths), origin))
        if level_ties:
            message = f"{level_ties // 2 or 1} pairs of switches of one level are joined; a tree has no such cables"
            self.problems.append(Problem(message, file=str(self.path)))
        return children, links

    def _nodes(self, origin: str, hosts: set[str]) -> list[NodesFound]:
        """Return the hosts, those with equal interfaces together."""
        alike: dict[tuple[int, float, tuple[str, ...]], list[str]] = {}
        for host, below in self.host_ports.items():
            if host in hosts:
                links = sorted(link for several in below.values() for link in several)
                speeds = Counter(bandwidth for _, bandwidth in links if bandwidth)
                usual = speeds.most_common(1)[0][0] if speeds else 0.0
                names = tuple(dict.fromkeys(name for name, _ in links if not name.startswith("H-")))
                alike.setdefault((len(links), usual, names), []).append(host)
        place = Place(str(self.path))
        return [
            NodesFound(
                tuple(sorted(names)),
                place,
                nics=NicsFound(Figure(count, origin), Figure(usual, origin) if usual else None, interfaces),
            )
            for (count, usual, interfaces), names in alike.items()
        ]
