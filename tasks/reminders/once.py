"""Answers that are worked out once each and then known: what makes a million questions cost a few hundred."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Once(dict[Question, Answer]):
    """``once[question]`` is what ``find(question)`` returns; it is asked the first time only."""

    def __init__(self, find: Callable[[Question], Answer]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, question: Question) -> Answer:
        answer = self[question] = self._find(question)
        return answer
