"""Measures what a site can do. Written by hpcplan; needs Python 3.9 and NumPy, and uses PyTorch where it is.

    python3 site_bench.py --out DIR [--rank R --ranks N] [--device auto|cpu|cuda] [--quick] [--storage DIR]

Every process measures products of matrices by shape and precision, attention and the bandwidth of memory; all
together measure all-reduces and all-gathers, inside each node and over all, and every pair a transfer each way; the
first of each node writes and reads a file. Each writes DIR/bench-RANK.json; hpcplan reads them all. Under Slurm rank
and ranks come from SLURM_PROCID and SLURM_NTASKS. Processes find each other through files in DIR, which all must see.

With CUDA and PyTorch the collectives are NCCL's. Otherwise they are rings over TCP between the hosts' processes, of
NumPy arrays: that measures the hosts' network and not the accelerators'.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import struct
import sys
import time
from pathlib import Path

import numpy as np

SHAPES = ((256, 1024, 1024), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 4096), (8192, 8192, 8192))
SIZES = tuple(2**power for power in (12, 16, 18, 20, 22, 24, 26, 28))
SEQUENCES = (2048, 8192, 16384)
ATTENTION_TOKENS = 16384
PATIENCE_S = 300.0
SWEEPS = 10  # of all pairs: a slow link is slow in all of them


def best_of(function, repeats, sync=lambda: None):
    """Return the shortest and the median seconds of a call, after one that warms up."""
    function()
    sync()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        sync()
        times.append(time.perf_counter() - began)
    return min(times), float(np.median(times))


def sustained(function, least_s, sync=lambda: None):
    """Return the seconds of a call among many without a pause, as training makes them: best and median of three runs.

    Accelerators then draw all the power they may and lower their clocks: single calls are faster by a tenth or so.
    """
    one, _ = best_of(function, 2, sync)
    count = max(2, min(2000, int(least_s / 3 / one)))
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(count):
            function()
        sync()
        times.append((time.perf_counter() - began) / count)
    return min(times), float(np.median(times))


class Cpu:
    """NumPy on this host."""

    name = "cpu"

    def __init__(self, torch):
        self.torch = torch
        self.device_name = platform.processor() or platform.machine()

    def gemms(self, shapes, least_s):
        for kind in (np.float32, np.float64):
            for m, k, n in shapes:
                left, right = np.ones((m, k), kind), np.ones((k, n), kind)
                out = np.empty((m, n), kind)
                yield (
                    np.dtype(kind).name.replace("float", "fp"),
                    (m, k, n),
                    sustained(lambda left=left, right=right, out=out: np.matmul(left, right, out=out), least_s),
                )
        if self.torch is not None:
            for m, k, n in shapes:
                left, right = self.torch.ones(m, k).bfloat16(), self.torch.ones(k, n).bfloat16()
                yield "bf16", (m, k, n), sustained(lambda left=left, right=right: left @ right, least_s)

    def attention(self, sequences, least_s):
        return iter(())  # says nothing of accelerators

    def memory(self, numbers, least_s):
        a, b, c = (np.full(numbers, value) for value in (1.0, 2.0, 3.0))

        def triad():
            np.multiply(c, 3.0, out=a)
            np.add(a, b, out=a)

        yield "copy", 16 * numbers, sustained(lambda: np.copyto(a, b), least_s)
        yield "triad", 40 * numbers, sustained(triad, least_s)  # NumPy passes over the result twice


class Cuda:
    """PyTorch on one accelerator."""

    name = "cuda"

    def __init__(self, torch, local):
        self.torch = torch
        self.device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(self.device)
        self.device_name = torch.cuda.get_device_name(self.device)

    def gemms(self, shapes, least_s):
        torch = self.torch
        kinds = [("fp32", torch.float32, False), ("tf32", torch.float32, True)]
        kinds += [("fp16", torch.float16, True), ("bf16", torch.bfloat16, True)]
        for name, kind, tensor_cores in kinds:
            torch.backends.cuda.matmul.allow_tf32 = tensor_cores
            for m, k, n in shapes:
                left = torch.randn(m, k, device=self.device).to(kind)
                right = torch.randn(k, n, device=self.device).to(kind)
                yield (
                    name,
                    (m, k, n),
                    sustained(lambda left=left, right=right: left @ right, least_s, torch.cuda.synchronize),
                )
        yield from self.eight_bits(shapes, least_s)

    def eight_bits(self, shapes, least_s):
        torch = self.torch
        if not hasattr(torch, "float8_e4m3fn") or torch.cuda.get_device_capability(self.device) < (8, 9):
            return
        one = torch.ones((), device=self.device)
        for m, k, n in shapes:
            left = torch.randn(m, k, device=self.device).to(torch.float8_e4m3fn)
            right = torch.randn(n, k, device=self.device).to(torch.float8_e4m3fn).t()

            def product(left=left, right=right):
                return torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

            try:
                timing = sustained(product, least_s, torch.cuda.synchronize)
            except (RuntimeError, TypeError):  # older releases call it otherwise
                return
            yield "fp8", (m, k, n), timing

    def attention(self, sequences, least_s):
        """Time FlashAttention under a causal mask, forward and backward, where PyTorch has it."""
        torch = self.torch
        try:
            from torch.nn.attention import SDPBackend, sdpa_kernel
        except ImportError:  # before PyTorch 2.3
            return
        for width in (64, 128):
            for sequence in sequences:
                shape = (max(1, ATTENTION_TOKENS // sequence), 2048 // width, sequence, width)
                query, key, value, gradient = (
                    torch.randn(shape, device=self.device, dtype=torch.bfloat16, requires_grad=grad)
                    for grad in (True, True, True, False)
                )

                def both(inputs=(query, key, value), gradient=gradient):
                    out = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
                    torch.autograd.grad(out, inputs, gradient)

                try:
                    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                        timing = sustained(both, least_s, torch.cuda.synchronize)
                except RuntimeError:  # a chip that it is not written for
                    return
                # 2 b h s^2 w forward under the mask, and 2.5 times as much backward
                yield shape, 7.0 * shape[0] * shape[1] * sequence**2 * width, timing

    def memory(self, numbers, least_s):
        torch = self.torch
        a, b, c = (torch.full((numbers,), value, device=self.device) for value in (1.0, 2.0, 3.0))
        sync = torch.cuda.synchronize
        yield "copy", 8 * numbers, sustained(lambda: a.copy_(b), least_s, sync)
        yield "triad", 12 * numbers, sustained(lambda: torch.add(b, c, alpha=3.0, out=a), least_s, sync)


class Tcp:
    """Processes joined by TCP: each listens, files in DIR say where."""

    def __init__(self, folder, rank, ranks):
        self.rank, self.ranks = rank, ranks
        self.listener = socket.create_server(("", 0), backlog=2 * ranks)
        host = socket.gethostname() if len(set(hosts_of(folder, rank, ranks))) > 1 else "127.0.0.1"
        publish(folder, f"port-{rank}", f"{host} {self.listener.getsockname()[1]}")
        self.links = {}
        for other in range(ranks):
            if other < rank:  # the lower rank listens
                name, port = await_file(folder, f"port-{other}").split()
                link = socket.create_connection((name, int(port)), timeout=PATIENCE_S)
                link.sendall(struct.pack("!i", rank))
                self.links[other] = link
        self.listener.settimeout(PATIENCE_S)
        while len(self.links) < ranks - 1:
            link, _ = self.listener.accept()
            link.settimeout(PATIENCE_S)
            self.links[struct.unpack("!i", bytes(self._exactly(link, 4)))[0]] = link
        for link in self.links.values():
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @staticmethod
    def _exactly(link, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = link.recv_into(view)
            if not got:
                raise ConnectionError("another process has gone")
            view = view[got:]
        return data

    def exchange(self, to, data, source, count):
        """Send bytes to one rank while receiving from another; neither waits for the other to begin."""
        import selectors

        out, into = self.links[to], self.links[source]
        left, received = memoryview(data).cast("B"), bytearray(count)
        space = memoryview(received)
        with selectors.DefaultSelector() as ready:
            for link in {out, into}:
                events = (selectors.EVENT_WRITE if link is out and left else 0) | (
                    selectors.EVENT_READ if link is into and space else 0
                )
                if events:
                    ready.register(link, events)
            while left or space:
                for key, events in ready.select(PATIENCE_S):
                    link = key.fileobj
                    if events & selectors.EVENT_WRITE and left:
                        link.setblocking(False)
                        with contextlib.suppress(BlockingIOError):
                            left = left[link.send(left[: 1 << 20]) :]
                        link.settimeout(PATIENCE_S)
                    if events & selectors.EVENT_READ and space:
                        got = link.recv_into(space)
                        if not got:
                            raise ConnectionError("another process has gone")
                        space = space[got:]
                    wanted = (selectors.EVENT_WRITE if link is out and left else 0) | (
                        selectors.EVENT_READ if link is into and space else 0
                    )
                    ready.modify(link, wanted) if wanted else ready.unregister(link)
        return received

    def barrier(self):
        """Wait for all: a message round the ring, twice."""
        for _ in range(2 if self.ranks > 1 else 0):
            right, left = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks
            if self.rank == 0:
                self.links[right].sendall(b"b")
                self._exactly(self.links[left], 1)
            else:
                self._exactly(self.links[left], 1)
                self.links[right].sendall(b"b")

    def all_reduce(self, members, count):
        """Reduce and gather round a ring of members; ``count`` bytes of 32-bit floats."""
        place, n = members.index(self.rank), len(members)
        parts = np.array_split(np.ones(count // 4, np.float32), n)
        right, left = members[(place + 1) % n], members[(place - 1) % n]
        for step in range(2 * (n - 1)):
            mine, theirs = (place - step) % n, (place - step - 1) % n
            data = np.frombuffer(self.exchange(right, parts[mine], left, parts[theirs].nbytes), np.float32)
            parts[theirs] = parts[theirs] + data if step < n - 1 else data
        return parts

    def all_gather(self, members, count):
        """Gather ``count`` bytes, an equal part from each member."""
        place, n = members.index(self.rank), len(members)
        part = bytes(count // n)
        for _ in range(n - 1):
            part = self.exchange(members[(place + 1) % n], part, members[(place - 1) % n], len(part))

    def send_and_back(self, other, count):
        """Send bytes to a partner and get as many back."""
        if self.rank < other:
            self.links[other].sendall(bytes(count))
            self._exactly(self.links[other], count)
        else:
            self._exactly(self.links[other], count)
            self.links[other].sendall(bytes(count))

    def close(self):
        """Hang up."""
        for link in [*self.links.values(), self.listener]:
            link.close()


class Distributed:
    """Processes joined by torch.distributed, NCCL on accelerators or gloo; groups are made by all, in one order."""

    def __init__(self, torch, folder, rank, ranks, device):
        self.torch, self.rank, self.ranks, self.device = torch, rank, ranks, device
        store = torch.distributed.FileStore(str(Path(folder) / "torch-store"), ranks)
        backend = "gloo" if device == "cpu" else "nccl"
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks)
        self.groups, self.buffers = {}, {}

    def _buffer(self, what, count):
        """Return the buffer of one use and size, the same each time: making it is not what is measured."""
        if (what, count) not in self.buffers:
            for key in [key for key in self.buffers if key[0] == what]:
                del self.buffers[key]  # of another size, no longer needed
            self.buffers[what, count] = self.torch.ones(max(1, count // 4), device=self.device)
        return self.buffers[what, count]

    def prepare(self, all_members):
        """Make a group of each list of members."""
        for members in all_members:
            self.groups[tuple(members)] = self.torch.distributed.new_group(members)

    def _sync(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def barrier(self):
        """Wait for all."""
        self.torch.distributed.barrier()
        self._sync()

    def all_reduce(self, members, count):
        """Reduce ``count`` bytes."""
        self.torch.distributed.all_reduce(self._buffer("reduce", count), group=self.groups[tuple(members)])
        self._sync()

    def all_gather(self, members, count):
        """Gather ``count`` bytes, an equal part from each member."""
        each = max(1, count // 4 // len(members))
        part, whole = self._buffer("part", 4 * each), self._buffer("whole", 4 * each * len(members))
        self.torch.distributed.all_gather_into_tensor(whole, part, group=self.groups[tuple(members)])
        self._sync()

    def send_and_back(self, other, count):
        """Send bytes to a partner and get as many back."""
        dist, data = self.torch.distributed, self._buffer("pair", count)
        first, second = (dist.send, dist.recv) if self.rank < other else (dist.recv, dist.send)
        first(data, other)
        second(data, other)
        self._sync()

    def close(self):
        """Leave."""
        self.torch.distributed.destroy_process_group()


def publish(folder, name, text):
    """Write a small file that others wait for, whole or not at all."""
    path = Path(folder) / name
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)


def await_file(folder, name):
    """Return what another process wrote."""
    path, until = Path(folder) / name, time.monotonic() + PATIENCE_S
    while not path.is_file():
        if time.monotonic() > until:
            raise TimeoutError(f"{path} did not come: is {folder} seen by all nodes?")
        time.sleep(0.02)
    return path.read_text()


def hosts_of(folder, rank, ranks):
    """Return the host of every rank, in order."""
    host = os.environ.get("HPCPLAN_BENCH_HOST") or os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    publish(folder, f"host-{rank}", host)
    return [await_file(folder, f"host-{other}") for other in range(ranks)]


def rounds_of(ranks):
    """Return rounds of disjoint pairs in which every two ranks meet once (the circle method)."""
    players = [*range(ranks)] + ([None] if ranks % 2 else [])
    half, rounds = len(players) // 2, []
    for _ in range(len(players) - 1):
        pairs = [(players[i], players[-1 - i]) for i in range(half)]
        rounds.append([tuple(sorted(pair)) for pair in pairs if None not in pair])
        players = [players[0], players[-1], *players[1:-1]]
    return rounds


def collectives(links, groups, sizes, repeats):
    """Yield where, what, ranks, bytes and seconds of each collective that this process takes part in."""
    for where, members in groups:
        if links.rank not in members or len(members) < 2:
            continue
        for what in ("all_reduce", "all_gather"):
            for size in sizes:
                call = getattr(links, what)
                best, median = best_of(lambda call=call, size=size, members=members: call(members, size), repeats)
                yield {
                    "where": where,
                    "what": what,
                    "ranks": len(members),
                    "bytes": size,
                    "best_s": best,
                    "median_s": median,
                }


def pairs(links, small, large, repeats, count):
    """Return rate and latency between this process and each other one.

    All pairs are gone through again and again, as what disturbs one is over when its turn comes again; ``sweeps_s`` are
    the times of each, ``best_s`` is the least and ``median_s`` the median of them.
    """
    sweeps, pings = {}, {}
    for _ in range(count):
        for pair_round in rounds_of(links.ranks):
            links.barrier()
            for pair in pair_round:
                if links.rank in pair:
                    other = pair[0] if links.rank == pair[1] else pair[1]
                    _, ping_s = best_of(lambda other=other: links.send_and_back(other, small), repeats)
                    best, _ = best_of(lambda other=other: links.send_and_back(other, large), max(1, repeats // 3))
                    sweeps.setdefault(other, []).append(best / 2)
                    pings.setdefault(other, []).append(ping_s / 2)
    return [
        {
            "other": other,
            "bytes": large,
            "best_s": min(times),
            "median_s": float(np.median(times)),
            "latency_s": min(pings[other]),
            "sweeps_s": times,
        }
        for other, times in sweeps.items()
    ]


def storage(folder, megabytes):
    """Write a file through to the disk and read it back past the page cache; return bytes/s each way."""
    path = Path(folder) / f"hpcplan-bench-{os.getpid()}"
    block = os.urandom(1 << 20)
    try:
        began = time.perf_counter()
        with path.open("wb") as stream:
            for _ in range(megabytes):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        write_s = time.perf_counter() - began
        with path.open("rb") as stream:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            while stream.read(1 << 20):
                pass
            read_s = time.perf_counter() - began
    finally:
        path.unlink(missing_ok=True)
    size = megabytes << 20
    return {"path": str(folder), "bytes": size, "write_bytes_per_s": size / write_s, "read_bytes_per_s": size / read_s}


def measure(options):
    """Do it all, and return what is written."""
    try:
        import torch
    except ImportError:
        torch = None
    hosts = hosts_of(options.out, options.rank, options.ranks)
    mine = [rank for rank, host in enumerate(hosts) if host == hosts[options.rank]]
    cuda = options.device != "cpu" and torch is not None and torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        sys.exit("--device cuda: no PyTorch with CUDA here")
    device = Cuda(torch, mine.index(options.rank)) if cuda else Cpu(torch)
    shapes = SHAPES[:2] if options.quick else SHAPES if cuda else SHAPES[:4]
    sizes = SIZES[:5] if options.quick else SIZES if cuda else SIZES[:7]
    repeats = 3 if options.quick else 10 if cuda else 5
    least_s = 0.02 if options.quick else 0.3
    result = {
        "schema": "hpcplan-bench/1",
        "time": int(time.time()),
        "rank": options.rank,
        "ranks": options.ranks,
        "host": hosts[options.rank],
        "hosts": hosts,
        "device": device.name,
        "device_name": device.device_name,
        "software": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": None if torch is None else torch.__version__,
        },
    }
    result["gemm"] = [
        {
            "precision": kind,
            "m": m,
            "k": k,
            "n": n,
            "best_s": best,
            "median_s": median,
            "flops_per_s": 2 * m * k * n / best,
        }
        for kind, (m, k, n), (best, median) in device.gemms(shapes, least_s)
    ]
    result["attention"] = [
        {
            "batch": batch,
            "heads": heads,
            "sequence": sequence,
            "width": width,
            "best_s": best,
            "median_s": median,
            "flops_per_s": flops / best,
        }
        for (batch, heads, sequence, width), flops, (best, median) in device.attention(
            SEQUENCES[:1] if options.quick else SEQUENCES, least_s
        )
    ]
    numbers = (1 << 28) if cuda else (1 << 22) if options.quick else (1 << 24)
    result["memory"] = [
        {"what": what, "bytes": size, "best_s": best, "median_s": median, "bytes_per_s": size / best}
        for what, size, (best, median) in device.memory(numbers, least_s)
    ]
    result["collectives"], result["pairs"] = [], []
    if options.ranks > 1:
        by_torch = cuda or options.links == "torch"
        if by_torch and torch is None:
            sys.exit("--links torch: no PyTorch here")
        links = (
            Distributed(torch, options.out, options.rank, options.ranks, "cuda" if cuda else "cpu")
            if by_torch
            else Tcp(options.out, options.rank, options.ranks)
        )
        nodes = [[r for r, host in enumerate(hosts) if host == name] for name in dict.fromkeys(hosts)]
        leaders = [members[0] for members in nodes]
        groups = [("node", members) for members in nodes]
        groups += [("network", leaders)] if len(nodes) > 1 else []
        if by_torch:
            links.prepare([members for _, members in groups])
        links.barrier()
        result["collectives"] = list(collectives(links, groups, sizes, repeats))
        links.barrier()
        result["pairs"] = pairs(links, 8, sizes[-2], max(2, repeats // 2), SWEEPS // 2 if options.quick else SWEEPS)
        links.barrier()
        links.close()
    if options.rank == mine[0] and options.storage:
        result["storage"] = storage(options.storage, 64 if options.quick else 1024)
    return result


def main(words=None):
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--rank", type=int, default=int(os.environ.get("SLURM_PROCID", 0)))
    parser.add_argument("--ranks", type=int, default=int(os.environ.get("SLURM_NTASKS", 1)))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--links", choices=["auto", "torch"], default="auto", help="torch: torch.distributed on CPUs")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--storage")
    options = parser.parse_args(words)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    publish(options.out, f"bench-{options.rank}.json", json.dumps(measure(options), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
