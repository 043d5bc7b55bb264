"""What a user is warned of."""

from __future__ import annotations

import warnings

from finetune_view.changes import warning_of_gitops
from finetune_view.object_view import ObjectView


class GitOpsWarning(UserWarning):
    """A tool applies the object from git, and may set the change back."""


def warn_of_gitops(view: ObjectView) -> None:
    """Say who may set back what was changed."""
    if warning := warning_of_gitops(view):
        warnings.warn(f"{view.resource}: {warning}", GitOpsWarning, stacklevel=4)
