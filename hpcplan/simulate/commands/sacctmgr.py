"""sacctmgr(1): ``show`` (or ``list``) of what a mock cluster has: itself, its users, one account, the QoS, the TRES."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from hpcplan.simulate.account_policy import QosPolicy
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.formatting import at_least, elapsed
from hpcplan.simulate.commands.options import flags, read_words, usage
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.commands.squeue_fields import tres_text
from hpcplan.simulate.live_controller import LiveController
from hpcplan.simulate.store import Session

__all__ = ["sacctmgr"]

_TABLE: Final = flags(
    "",
    "help:h immediate:i json noheader:n oneliner:o parsable:p parsable2:P quiet:Q readonly:r "
    "associations:s usage verbose:v version:V",
)
_Rows = list[dict[str, str]]
_DEFAULTS: Final = {
    "account": "account,descr,org",
    "associations": "cluster,account,user,partition,share,priority,grpjobs,grptres,grpsubmit,grpwall,grptresmins,"
    "maxjobs,maxtres,maxtrespernode,maxsubmit,maxwall,maxtresmins,qos,defaultqos,grptresrunmin",
    "clusters": "cluster,controlhost,controlport,rpc,share,grpjobs,grptres,grpsubmit,maxjobs,maxtres,maxsubmit,maxwall,"
    "qos,defaultqos",
    "qos": "name,priority,gracetime,preempt,preemptexempttime,preemptmode,flags,usagethres,usagefactor,grptres,"
    "grptresmins,grptresrunmin,grpjobs,grpsubmit,grpwall,maxtres,maxtrespernode,maxtresmins,maxwall,maxtrespu,"
    "maxjobspu,maxsubmitpu,maxtrespa,maxjobspa,maxsubmitpa,mintres",
    "tres": "type,name,id",
    "users": "user,defaultaccount,admin",
}
_WITH_ASSOC: Final = (
    ",cluster,account,partition,share,priority,maxjobs,maxnodes,maxcpus,maxsubmit,maxwall,maxcpumins,qos,defaultqos"
)
_HEADERS: Final = {
    "account": "Account", "admin": "Admin", "cluster": "Cluster", "controlhost": "ControlHost",
    "controlport": "ControlPort", "defaultaccount": "Def Acct", "defaultqos": "Def QOS", "descr": "Descr",
    "flags": "Flags", "gracetime": "GraceTime", "grpjobs": "GrpJobs", "grpsubmit": "GrpSubmit", "grptres": "GrpTRES",
    "grptresmins": "GrpTRESMins", "grptresrunmin": "GrpTRESRunMins", "grpwall": "GrpWall", "id": "ID",
    "maxcpumins": "MaxCPUMins", "maxcpus": "MaxCPUs", "maxjobs": "MaxJobs", "maxjobspa": "MaxJobsPA",
    "maxjobspu": "MaxJobsPU", "maxnodes": "MaxNodes", "maxsubmit": "MaxSubmit", "maxsubmitpa": "MaxSubmitPA",
    "maxsubmitpu": "MaxSubmitPU", "maxtres": "MaxTRES", "maxtresmins": "MaxTRESMins",
    "maxtresrunminspa": "MaxTRESRunMinsPA", "maxtresrunminspu": "MaxTRESRunMinsPU",
    "maxtrespernode": "MaxTRESPerNode", "maxtrespa": "MaxTRESPA", "maxtrespu": "MaxTRESPU", "maxwall": "MaxWall",
    "mintres": "MinTRES", "name": "Name", "org": "Org", "partition": "Partition", "preempt": "Preempt",
    "preemptexempttime": "PreemptExemptTime", "preemptmode": "PreemptMode", "priority": "Priority", "qos": "QOS",
    "nodename": "NodeName", "reason": "Reason", "rpc": "RPC", "state": "State", "timeend": "TimeEnd",
    "timestart": "TimeStart", "wckey": "WCKey",
    "share": "Share", "type": "Type", "usagefactor": "UsageFactor", "usagethres": "UsageThres",
    "user": "User",
}  # fmt: skip
_WIDTHS: Final = {
    "nodename": 15, "reason": 30, "state": 6, "timeend": 19, "timestart": 19,
    "qos": 20, "descr": 20, "org": 20, "name": 10, "share": 9, "controlhost": 15, "controlport": 12, "rpc": 5, "id": 6,
    "type": 8, "admin": 9, "defaultqos": 9, "flags": 40, "preemptexempttime": 19, "preemptmode": 11, "usagefactor": 11,
    "grptres": 13, "grptresmins": 13, "grptresrunmin": 13, "grpjobs": 7, "grpsubmit": 9, "grpwall": 11, "maxtres": 13,
    "maxtrespernode": 14, "maxtresmins": 13, "maxwall": 11, "maxtrespu": 13, "maxjobspu": 9, "maxsubmitpu": 11,
    "maxtresrunminspa": 22, "maxtresrunminspu": 22,
    "maxtrespa": 13, "maxjobspa": 9, "maxsubmitpa": 11, "mintres": 13, "maxjobs": 7, "maxsubmit": 9,
}  # fmt: skip
_TRES_WIDTHS: Final = {"name": 15}
_ENTITIES: Final = {
    "accounts": "account", "associations": "associations", "clusters": "clusters", "qos": "qos", "tres": "tres",
    "users": "users",
}  # fmt: skip
_ALIASES: Final = {"acct": "account", "defacct": "defaultaccount", "defaultqos": "defaultqos", "names": "name"}
_EMPTY: Final = {  # there is never one of these; what a table of them has in its head
    "events": "cluster,nodename,timestart,timeend,state,reason,user", "federations": "", "problems": "",
    "resources": "", "reservations": "", "runawayjobs": "", "transactions": "", "wckeys": "wckey,cluster,user",
}  # fmt: skip


def sacctmgr(controller: Controller, connection: Any, call: Call) -> int:
    """Answer ``show`` and ``list``; nothing can be changed."""
    words = read_words("sacctmgr", call.words, _TABLE)
    if "help" in words or not words.rest:
        call.reply.say(usage("sacctmgr", _TABLE, "show ENTITY [KEY=VALUE ...]"))
        return 0
    keyword, *rest = words.rest
    if keyword.lower() not in {"show", "list"}:
        if keyword.lower() in {"add", "create", "modify", "delete", "remove", "archive", "load", "dump"}:
            raise Refusal("sacctmgr: error: the accounts of a mock cluster cannot be changed")
        raise Refusal(f"invalid keyword: {keyword}")
    entity = rest[0].lower() if rest else ""
    empty = next((name for name in _EMPTY if len(entity) >= 2 and name.startswith(entity)), None)
    if empty == "runawayjobs":
        call.reply.say(f"Runaway Jobs: No runaway jobs found on cluster {controller.store.settings().cluster}")
    if empty is not None:
        if _EMPTY[empty]:
            _print(call, words, [(name, _WIDTHS.get(name, 10)) for name in _EMPTY[empty].split(",")], [])
        return 0
    found = next(
        (name for name in _ENTITIES if (name.startswith(entity) and len(entity) >= 3) or name[:-1] == entity), None
    )
    if found is None:
        raise Refusal(
            'No valid entity in list command\nInput line must include "Account", "Association", "Cluster", '
            '"Configuration",\n"Event", "Federation", "Problem", "QOS", "Resource", "Reservation",\n'
            '"RunAwayJobs", "Stats", "Transaction", "TRES", "User", or "WCKey"'
        )
    kind = _ENTITIES[found]
    options, assoc = _conditions(rest[1:], kind)
    assoc = assoc or "associations" in words
    with controller.session() as session:
        rows = _rows(controller, session, call, kind, assoc=assoc)
    rows = [
        row for row in rows if all(row.get(key, "") in values for key, values in options.items() if key != "format")
    ]
    version = controller.store.settings().slurm_version
    columns = _columns(options.get("format"), kind, version, assoc=assoc)
    _print(call, words, columns, rows)
    return 0


def _conditions(rest: list[str], kind: str) -> tuple[dict[str, list[str]], bool]:
    """Return what rows must have (``user=root``, a bare name), the ``format``, and whether associations are asked."""
    options: dict[str, list[str]] = {}
    assoc = False
    for word in rest:
        key, given, value = word.partition("=")
        name = key.lower()
        if name in {"where", "set"}:
            continue
        if name in {"withassoc", "withassocs", "withcoord", "withdeleted", "wopi", "wopinfo", "tree"} and not given:
            assoc |= name.startswith("withassoc")
        elif name.startswith("format"):
            options["format"] = [item for item in value.split(",") if item]
        elif given:
            options[{"accounts": "account", "users": "user", "clusters": "cluster"}.get(name, name)] = value.split(",")
        else:
            options[{"users": "user", "account": "account", "clusters": "cluster", "qos": "name"}.get(kind, "user")] = [
                word
            ]
    return options, assoc


def _rows(controller: Controller, session: Session, call: Call, kind: str, *, assoc: bool) -> _Rows:
    cluster = session.settings.cluster
    users = sorted({call.user, *(job.user for job in session.engine.jobs.values())})
    policies = session.engine.account_policy.qos if isinstance(session.engine, LiveController) else {}
    names = sorted({"normal", *policies, *(name for part in session.machine.partitions.values() for name in part.qos)})
    qos = ",".join(names)
    if kind == "clusters":
        return [
            {
                "cluster": cluster,
                "controlhost": "127.0.0.1",
                "controlport": "6817",
                "rpc": "9728",
                "share": "1",
                "qos": qos,
            }
        ]
    if kind == "qos":
        return [_qos_row(policies.get(name, QosPolicy(name))) for name in names]
    if kind == "tres":
        known = [
            ("cpu", "", 1),
            ("mem", "", 2),
            ("energy", "", 3),
            ("node", "", 4),
            ("billing", "", 5),
            ("fs", "disk", 6),
        ]
        known += [("vmem", "", 7), ("pages", "", 8), ("gres", "gpu", 1001)]
        return [{"type": type_, "name": name, "id": str(number)} for type_, name, number in known]
    accounts = _accounts(controller, session)
    if kind == "account":
        rows = [{"account": name, "descr": name, "org": name} for name in accounts]
        return [*rows, {"account": "root", "descr": "default root account", "org": "root"}]
    base = {"cluster": cluster, "share": "1", "qos": qos}
    default = controller.default_account
    if kind == "users":
        of_each = [*accounts, "root"] if assoc else [default]
        about = {**base, "defaultaccount": default, "admin": "None"}
        return [{**about, "user": user, "account": account} for user in users for account in of_each]
    found: _Rows = []
    for account in ("root", *accounts):
        found.append({**base, "account": account})
        found += [{**base, "account": account, "user": user} for user in users]
    return found


def _accounts(controller: Controller, session: Session) -> list[str]:
    """Return the accounts that the site names, those given at the start, and those that jobs have been put on."""
    site = json.loads((controller.store.directory / "site.json").read_text(encoding="utf-8"))
    found = [*controller.accounts]
    for part in (site.get("partitions") or {}).values():
        found += part.get("accounts") or ()
    found += [job.spec.account for job in session.engine.jobs.values() if job.spec.account]
    return [name for name in dict.fromkeys(found) if name != "root"]


def _columns(given: list[str] | None, kind: str, version: str, *, assoc: bool) -> list[tuple[str, int]]:
    usual = _DEFAULTS[kind] + (_WITH_ASSOC if assoc and kind == "users" else "")
    if at_least(version, "24.05"):
        usual = usual.replace("maxtrespa,", "maxtrespa,maxtresrunminspa,maxtresrunminspu,")
    items = given or usual.split(",")
    columns = []
    for item in items:
        name, _, size = item.strip().lower().partition("%")
        name = _ALIASES.get(name, name)
        close = [known for known in _HEADERS if known.startswith(name)]
        field = name if name in _HEADERS else close[0] if close else None
        if field is None:
            raise Refusal(
                f"sacctmgr: fatal: Unknown field '{item}'"
                if name
                else " Bad format on : End your option with an '=' sign"
            )
        columns.append(
            (
                field,
                int(size)
                if size.lstrip("-").isdecimal()
                else (_TRES_WIDTHS if kind == "tres" else _WIDTHS).get(field, _WIDTHS.get(field, 10)),
            )
        )
    return columns


def _print(call: Call, words: Any, columns: list[tuple[str, int]], rows: _Rows) -> None:
    parsable = "parsable" in words or "parsable2" in words
    end = "|" if "parsable" in words else ""

    def say(cells: Mapping[str, str]) -> None:
        texts = [cells.get(name, "") for name, _ in columns]
        if parsable:
            call.reply.say("|".join(texts) + end)
            return
        call.reply.say("".join(_cell(text, width) for text, (_, width) in zip(texts, columns, strict=True)))

    if "noheader" not in words:
        if parsable:
            say(_HEADERS)
        else:
            say({name: _HEADERS[name][: abs(width)] for name, width in columns})
            call.reply.say("".join("-" * abs(width) + " " for _, width in columns))
    for row in rows:
        say(row)


def _cell(text: str, width: int) -> str:
    size = abs(width)
    text = text[: size - 1] + "+" if len(text) > size else text
    return (text.ljust(size) if width < 0 else text.rjust(size)) + " "


def _qos_row(qos: QosPolicy) -> dict[str, str]:
    limits = qos.limits
    return {
        "name": qos.name,
        "priority": str(qos.priority),
        "gracetime": elapsed(qos.grace_time_s),
        "preempt": ",".join(qos.preempts),
        "preemptexempttime": elapsed(qos.preempt_exempt_s),
        "preemptmode": qos.preempt_mode or "cluster",
        "usagefactor": f"{qos.usage_factor:.6f}",
        "grptres": _tres(limits.group_tres),
        "grpjobs": _count(limits.group_jobs),
        "grpsubmit": _count(limits.group_submit),
        "grpwall": elapsed(limits.group_wall_s),
        "grptresmins": _tres(limits.group_minutes),
        "grptresrunmin": _tres(limits.group_run_minutes),
        "maxtres": _tres(limits.job_tres),
        "maxtresmins": _tres(limits.job_minutes),
        "maxwall": elapsed(limits.job_wall_s),
        "maxtrespu": _tres(limits.user_tres),
        "maxjobspu": _count(limits.user_jobs),
        "maxsubmitpu": _count(limits.user_submit),
        "maxtrespa": _tres(limits.account_tres),
        "maxjobspa": _count(limits.account_jobs),
        "maxsubmitpa": _count(limits.account_submit),
    }


def _tres(amounts: Mapping[str, int]) -> str:
    return tres_text(amounts, short=True)


def _count(most: int | None) -> str:
    return "" if most is None else str(most)
