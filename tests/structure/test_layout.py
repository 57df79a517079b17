"""The layout holds: who may import whom, one name through everything, no forbidden module, no smtplib."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from configs.settings import PROJECT_ROOT

FOLDERS = ("flows", "tasks", "configs", "data_contracts")
FORBIDDEN_NAMES = {"email", "emails", "types", "logging", "utils"}
NOT_FLOWS = {"__init__", "cli"}


def _modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _imports_of(package: str, modules: list[Path]) -> list[str]:
    return [
        str(path.relative_to(PROJECT_ROOT))
        for path in modules
        if any(name == package or name.startswith(f"{package}.") for name in _imports(path))
    ]


def _flows() -> list[Path]:
    return [path for path in sorted((PROJECT_ROOT / "flows").glob("*.py")) if path.stem not in NOT_FLOWS]


def test_prefect_is_imported_only_by_flows_and_steps() -> None:
    """Deciding and storing know nothing of Prefect."""
    users = _imports_of("prefect", _modules())
    assert "tasks/steps.py" in users
    assert [name for name in users if not name.startswith("flows/") and Path(name).name != "steps.py"] == []


def test_no_module_sends_mail_behind_the_outbox() -> None:
    """smtplib is imported nowhere, the mail library by the mailer alone, and a module that would is found."""
    modules = _modules()
    assert len(modules) > 30
    assert _imports_of("smtplib", modules) == []
    assert _imports_of("sqlalchemy", modules) != []
    assert _imports_of("emails", modules) == ["tasks/mail_connection.py", "tasks/mailer.py"]


def test_no_module_has_a_name_that_hides_another() -> None:
    """No module is called like one of the standard library's or like nothing in particular."""
    modules = _modules()
    assert len(modules) > 30
    assert [str(path) for path in modules if path.stem in FORBIDDEN_NAMES] == []


def test_one_name_runs_through_file_flow_runbook_and_docstring() -> None:
    """A flow's file holds a flow of the same name, says six facts about itself and has a runbook of that name."""
    flows = _flows()
    assert len(flows) >= 2
    for path in flows:
        tree = ast.parse(path.read_text("utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert path.stem in {function.name for function in functions}, path
        docstring = ast.get_docstring(tree) or ""
        for fact in ("Does:", "Reads:", "Writes:", "Outside effects:", "A second run:", "Runbook:"):
            assert fact in docstring, (path, fact)
        assert f"docs/runbooks/{path.stem}.md" in docstring
        assert (PROJECT_ROOT / "docs" / "runbooks" / f"{path.stem}.md").is_file()


def test_a_flows_body_is_a_table_of_contents() -> None:
    """No flow has more than 40 lines in its body."""
    flows = _flows()
    assert flows
    for path in flows:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                assert (node.end_lineno or 0) - node.body[0].lineno <= 40, path


def test_every_public_function_says_what_comes_back() -> None:
    """Modules and public functions have docstrings."""
    missing = []
    modules = [path for path in _modules() if path.stem != "__init__" and "migrations/versions" not in str(path)]
    assert len(modules) > 30
    for path in modules:
        tree = ast.parse(path.read_text("utf-8"))
        if ast.get_docstring(tree) is None:
            missing.append(str(path))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                missing.append(f"{path.name}:{node.name}")
    assert missing == []


def test_nothing_names_a_package_registry() -> None:
    """No file of the project names the host of a package index, and the lock holds a hash for every package."""
    lock = (PROJECT_ROOT / "requirements.lock").read_text("utf-8")
    packages = re.findall(r"^[a-z0-9][^\s=]*==", lock, re.MULTILINE)
    assert len(packages) > 80
    assert lock.count("--hash=sha256:") >= len(packages)
    hosts = re.compile("py" + r"pi\.org|python" + r"hosted\.org|--(extra-)?index-url\s+http")
    named = [
        path.name
        for path in [PROJECT_ROOT / "requirements.lock", PROJECT_ROOT / "pyproject.toml", PROJECT_ROOT / "Makefile"]
        if hosts.search(path.read_text("utf-8"))
    ]
    assert named == []
