"""The words that an option takes, where it takes few: the `Literal` parameters of its target.

They are read from source files, for to import them would take seconds.
"""

import ast
from functools import cache
from typing import Any

from detection.config.plain import PACKAGE
from detection.errors import UserError


def check_words(plain: Any, where: str = "") -> None:
    """Refuse a word that is none of those its target knows.

    Args:
        plain: a config with `_target_` anywhere in it, as plain lists and dicts.
        where: dotted name of this part of it.

    Raises:
        UserError: names the option, its value and the words to choose from.
    """
    if isinstance(plain, list):
        for number, value in enumerate(plain):
            check_words(value, f"{where}.{number}")
    if not isinstance(plain, dict):
        return
    known = words_of(str(plain.get("_target_", "")))
    for key, value in plain.items():
        option = f"{where}.{key}".lstrip(".")
        if isinstance(value, str) and value not in known.get(key, [value]):
            raise UserError(f"{option}={value}: choose one of {', '.join(known[key])}")
        check_words(value, option)


@cache
def words_of(target: str) -> dict[str, list[str]]:
    """The words that each parameter of a class or function of ours takes.

    >>> words_of("detection.proposals.selective_search.SelectiveSearch")["mode"]
    ['fast', 'quality']
    """
    if not target.startswith("detection."):
        return {}
    module, made = definition(*target.rpartition(".")[::2])
    if isinstance(made, ast.ClassDef):
        inits = [n for n in made.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if inits:
            made = inits[0]
    if isinstance(made, ast.ClassDef):  # a dataclass, or its base's parameters
        result = {k: w for b in made.bases if isinstance(b, ast.Name) for k, w in
                  inherited(module, b.id).items()}  # fmt: skip
        hints = [(n.target, n.annotation) for n in made.body if isinstance(n, ast.AnnAssign)]
        named = [(t.id, hint) for t, hint in hints if isinstance(t, ast.Name)]
    elif isinstance(made, ast.FunctionDef):
        result = {}
        arguments = [*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs]
        named = [(a.arg, a.annotation) for a in arguments if a.annotation is not None]
    else:
        raise UserError(f"config: _target_={target}: there is no such class or function")
    return result | {name: words for name, hint in named if (words := literals(module, hint))}


def inherited(module: str, base: str) -> dict[str, list[str]]:
    """The words of a base class; none of a class of another package."""
    where, found = definition(module, base)
    return words_of(f"{where}.{base}") if found is not None else {}


def literals(module: str, hint: ast.expr) -> list[str]:
    """The words of an annotation in a module: of a `Literal`, also under a name, or beside None."""
    if isinstance(hint, ast.BinOp):
        return [*literals(module, hint.left), *literals(module, hint.right)]
    if isinstance(hint, ast.Subscript) and ast.unparse(hint.value) == "Literal":
        words = ast.literal_eval(hint.slice)
        return [str(word) for word in (words if isinstance(words, tuple) else [words])]
    if isinstance(hint, ast.Name):
        where, found = definition(module, hint.id)
        return literals(where, found) if isinstance(found, ast.expr) else []
    return []


def definition(module: str, name: str) -> tuple[str, ast.AST | None]:
    """Where a name of ours that a module knows is defined, and its class, function or value."""
    for node in statements(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return module, node.value
        if isinstance(node, ast.ImportFrom) and name in [n.name for n in node.names]:
            return definition(str(node.module), name)
    return module, None


@cache
def statements(module: str) -> list[ast.stmt]:
    """The statements of a module of ours; none of another's."""
    if module.partition(".")[0] != PACKAGE.name:
        return []
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
