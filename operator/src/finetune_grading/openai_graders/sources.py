"""The code of OpenAI's python graders, which reads fields of items by their names there."""

from __future__ import annotations

import ast

from finetune_grading.openai_graders.variables import Rename

_NAMES_BACK = """

# Added by the import: in the dataset, these fields have other names.
def _with_openais_names(grade, names={names!r}):
    def graded(sample, item):
        own = {{name: value for name, value in item.items() if name not in names and name not in names.values()}}
        return grade(sample, own | {{name: item[ours] for name, ours in names.items() if ours in item}})

    return graded


grade = _with_openais_names(grade)
"""


def with_fields_of_openai(source: str, rename: Rename) -> str:
    """The code, followed by lines that give renamed fields their names back, if it mentions any.

    What does not parse is returned as it is: whoever checks the grader says so.
    """
    try:
        tree = compile(source, "source", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {text: ours for text in sorted(texts) if (ours := rename(text)) != text}
    return source + _NAMES_BACK.format(names=names) if names else source
