"""The house style of sql/, rule by rule, by PostgreSQL's own parser. A rule yields what is wrong."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pglast import ast, enums, parse_sql
from pglast.parser import scan
from pglast.visitors import Visitor

ALLOWED = {
    "functions": (ast.CreateFunctionStmt, ast.CommentStmt, ast.GrantStmt),
    "triggers": (ast.CreateFunctionStmt, ast.CreateTrigStmt, ast.DropStmt, ast.CommentStmt, ast.GrantStmt),
    "views": (ast.ViewStmt, ast.CommentStmt, ast.GrantStmt),
}
CLAUSES = ["language", "volatility", "strict", "parallel", "cost", "rows", "security", "set"]
RESULTS = (enums.FunctionParameterMode.FUNC_PARAM_TABLE, enums.FunctionParameterMode.FUNC_PARAM_OUT)


@dataclass(frozen=True)
class File:
    """A file of sql/: its place, KIND/SCHEMA/STEM.sql, and its text."""

    kind: str
    schema: str
    stem: str
    text: str

    @property
    def name(self) -> str:
        """What the file should define."""
        return f"{self.schema}.{self.stem}"

    @cached_property
    def statements(self) -> list[Any]:
        return [raw.stmt for raw in parse_sql(self.text)]

    def all(self, node: type) -> list[Any]:
        return [statement for statement in self.statements if isinstance(statement, node)]


Rule = Callable[[File], Iterator[str]]


def complaints(file: File) -> list[str]:
    """All that is wrong with a file."""
    return [complaint for rule in RULES for complaint in rule(file)]


def only_what_can_be_replaced(file: File) -> Iterator[str]:
    for before, statement in zip([None, *file.statements], file.statements, strict=False):
        if not isinstance(statement, ALLOWED[file.kind]):
            yield f"{type(statement).__name__} has no place in {file.kind}/"
        elif isinstance(statement, ast.CreateTrigStmt) and statement.isconstraint:
            # PostgreSQL can't replace these.
            if not isinstance(before, ast.DropStmt) or dropped(before) != trigger_name(statement):
                yield f"write drop trigger if exists before constraint trigger {statement.trigname}"
        elif isinstance(statement, ast.DropStmt):
            made = {trigger_name(other) for other in file.all(ast.CreateTrigStmt) if other.isconstraint}
            if not statement.missing_ok or dropped(statement) not in made:
                yield f"drops {dropped(statement)}, which it does not make again"
        elif not isinstance(statement, (ast.CommentStmt, ast.GrantStmt)) and not statement.replace:
            yield "write create or replace"


def named_after_what_it_holds(file: File) -> Iterator[str]:
    held = [dotted(routine.funcname) for routine in file.all(ast.CreateFunctionStmt)]
    held += [f"{view.view.schemaname}.{view.view.relname}" for view in file.all(ast.ViewStmt)]
    if held != [file.name]:
        yield f"holds {held}, not just {file.name}"
    triggers = file.all(ast.CreateTrigStmt)
    if bool(triggers) != (file.kind == "triggers"):
        yield "triggers, and only triggers, lie in triggers/"
    for trigger in triggers:
        if dotted(trigger.funcname) != file.name or not trigger.trigname.startswith(file.stem):
            yield f"trigger {trigger.trigname} is another file's"


def opens_with_what_it_promises(file: File) -> Iterator[str]:
    header = re.match(r"(--.*\n)*", file.text)
    lines = header.group().splitlines() if header else []
    if not lines or not re.match(rf"-- ({file.schema}\.)?{file.stem}: \S", lines[0]):
        yield f"the first line is not: -- {file.name}: what it does"
    if len(lines) < 3:
        yield "the header does not say what goes in, what comes out, and why it is so"


def comments_on_everything(file: File) -> Iterator[str]:
    said = set()
    for comment in file.all(ast.CommentStmt):
        named = comment.object
        if comment.comment:
            said.add(dotted(named.objname if isinstance(named, ast.ObjectWithArgs) else named))
    made = [dotted(routine.funcname) for routine in file.all(ast.CreateFunctionStmt)]
    made += [f"{view.view.schemaname}.{view.view.relname}" for view in file.all(ast.ViewStmt)]
    made += [trigger_name(trigger) for trigger in file.all(ast.CreateTrigStmt)]
    for name in made:
        if name not in said:
            yield f"no comment on {name}"


def pins_the_path(file: File) -> Iterator[str]:
    for routine in file.all(ast.CreateFunctionStmt):
        settings = {
            option.arg.name: [getattr(value.val, "sval", value.val) for value in option.arg.args or ()]
            for option in routine.options
            if option.defname == "set"
        }
        if not routine.is_procedure:
            if not settings and _may_be_inlined(routine):
                continue
            if settings.get("search_path") != ["pg_catalog", "pg_temp"]:
                yield "no `set search_path = pg_catalog, pg_temp`"
            continue
        # What has a SET clause or SECURITY DEFINER may not COMMIT; it sets the path in each transaction.
        if settings or "security" in options(routine):
            yield "a procedure with SET or SECURITY DEFINER may not COMMIT"
        if not re.search(r"set_config\('search_path', 'pg_catalog, pg_temp', true\)", body(routine)):
            yield "the procedure does not set its path"


def _may_be_inlined(routine: ast.CreateFunctionStmt) -> bool:
    """Whether it is one expression of immutable functions, all qualified: no path has any say in it."""
    given = {option.defname: option.arg for option in routine.options}
    if given["language"].sval != "sql" or given["volatility"].sval != "immutable" or "security" in given:
        return False
    names = Names()
    names(parse_sql(body(routine)))
    return bool(names.calls) and not names.others and all(name[0] == "pg_catalog" for name in names.calls)


class Names(Visitor):
    """The functions that a statement calls, and whatever else of it a search path could find elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.others: list[Any] = []

    def visit_FuncCall(self, _: Any, node: ast.FuncCall) -> None:
        self.calls.append([part.sval for part in node.funcname])

    def visit_A_Expr(self, _: Any, node: ast.A_Expr) -> None:
        self.others.append(node)

    visit_RangeVar = visit_TypeName = visit_A_Expr


def trigger_functions_need_no_rights_of_their_callers(file: File) -> Iterator[str]:
    for routine in file.all(ast.CreateFunctionStmt):
        returned = routine.returnType
        if returned and returned.names[-1].sval == "trigger" and "security" not in options(routine):
            yield "a trigger function is security definer"


def clauses_in_one_order(file: File) -> Iterator[str]:
    for routine in file.all(ast.CreateFunctionStmt):
        given = [option.defname for option in routine.options if option.defname != "as"]
        if given != sorted(given, key=CLAUSES.index):
            yield f"clauses are not in the order {', '.join(CLAUSES)}"
        if "volatility" not in given and not routine.is_procedure:
            yield "say volatile, stable or immutable"


def names_say_what_they_are(file: File) -> Iterator[str]:
    for routine in file.all(ast.CreateFunctionStmt):
        for parameter in routine.parameters or ():
            if parameter.mode not in RESULTS and not (parameter.name or "").startswith("p_"):
                yield f"parameter {parameter.name} does not begin with p_"
        if options(routine)["language"].sval == "plpgsql":
            for name in variables(body(routine)):
                if not name.startswith(("v_", "constant c_")):
                    yield f"{name}: variables begin with v_, constants with c_ or v_"


def keywords_in_lower_case(file: File) -> Iterator[str]:
    for word in shouted(file.text):
        yield f"keyword {word} is not in lower case"


def plans_without_scans_are_not_compiled(file: File) -> Iterator[str]:
    # What can't do without a scan then costs 1e10: reason enough for the server to compile it, for a
    # second each time, unless it is told not to.
    for routine in file.all(ast.CreateFunctionStmt):
        settings = {
            option.arg.name: [getattr(value.val, "sval", value.val) for value in option.arg.args or ()]
            for option in routine.options
            if option.defname == "set"
        }
        if settings.get("enable_seqscan") == ["off"] and settings.get("jit") != ["off"]:
            yield "enable_seqscan = off without jit = off"


def any_database_can_hold_it(file: File) -> Iterator[str]:
    if not file.text.isascii():
        yield "not ASCII: a database with another encoding than UTF-8 can't hold it"


RULES: list[Rule] = [
    only_what_can_be_replaced,
    named_after_what_it_holds,
    opens_with_what_it_promises,
    comments_on_everything,
    pins_the_path,
    trigger_functions_need_no_rights_of_their_callers,
    clauses_in_one_order,
    names_say_what_they_are,
    keywords_in_lower_case,
    any_database_can_hold_it,
    plans_without_scans_are_not_compiled,
]


def dotted(names: Any) -> str:
    return ".".join(name.sval for name in names)


def trigger_name(trigger: ast.CreateTrigStmt) -> str:
    return f"{trigger.relation.schemaname}.{trigger.relation.relname}.{trigger.trigname}"


def dropped(statement: ast.DropStmt) -> str:
    return ", ".join(dotted(names) for names in statement.objects)


def options(routine: ast.CreateFunctionStmt) -> dict[str, Any]:
    return {option.defname: option.arg for option in routine.options}


def body(routine: ast.CreateFunctionStmt) -> str:
    return str(options(routine)["as"][0].sval)


def variables(text: str) -> Iterator[str]:
    """What a plpgsql body declares, loop variables included; constants as ``constant NAME``."""
    bare = re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", text))
    for section in re.findall(r"\bdeclare\b(.*?)\bbegin\b", bare, re.DOTALL):
        for name, constant in re.findall(
            r"(?:^|;)\s*(\w+)\s+(constant\b)?", section.rstrip().removesuffix(";")
        ):
            yield f"{constant} {name}".strip()
    yield from re.findall(r"\bfor(?:each)? (\w+) (?:in|slice)\b", bare)


def shouted(text: str) -> Iterator[str]:
    """Keywords that are not in lower case, also inside bodies in dollar quotes."""
    raw = text.encode()
    for token in scan(text):
        word = raw[token.start : token.end + 1].decode(errors="replace")
        if token.kind != "NO_KEYWORD" and word != word.lower():
            yield word
        if inside := re.fullmatch(r"(\$\w*\$)(.*)\1", word, re.DOTALL):
            yield from shouted(inside.group(2))
