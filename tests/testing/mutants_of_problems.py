"""Deliberately wrong tasks, answers and boundaries."""

from __future__ import annotations

import random
import re

from nabla.core.errors import ConfigError
from nabla.problems.answers.base import Answers
from nabla.problems.tasks.base import Problem, Task, check_range
from nabla.rollouts.boundaries.base import Boundary
from tests.testing.catalogue import caught_by

# -- tasks -----------------------------------------------------------------------------------------


def task(law: str):
    return caught_by(law, "check_task")


class Digits(Answers):
    """The last number."""

    def extract(self, response):
        found = re.findall(r"[0-9]{1,9}", response)
        return found[-1] if found else None

    def equal(self, left, right):
        return left == right


class Sums(Task):
    """Ten sums, as they should be."""

    answers = Digits()

    def every(self):
        return [Problem(f"sum-{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(10)]

    def problems(self, n=None, *, seed=None, offset=0):
        check_range(n, offset)
        found = self.every()
        if seed is not None:
            random.Random(seed).shuffle(found)
        if offset + (n or 1) > len(found):
            raise ConfigError("There are ten sums", got=n)
        return found[offset:] if n is None else found[offset : offset + n]


@task("problems can be told apart")
class OneId(Sums):
    """A batch's problems have one name."""

    def every(self):
        return [Problem("sum", p.prompt, p.gold) for p in super().every()]


@task("the same arguments give the same problems")
class FreshEachTime(Sums):
    """Goes on where it stopped."""

    drawn = 0

    def every(self):
        self.drawn += 1
        return [Problem(f"{p.id}-{self.drawn}", p.prompt, p.gold) for p in super().every()]


@task("a longer list contains a shorter one")
class ShufflesWhatItTook(Sums):
    """Takes n problems, and then shuffles them."""

    def problems(self, n=None, *, seed=None, offset=0):
        found = super().problems(n, offset=offset)
        random.Random(seed or 0).shuffle(found)
        return found


@task("a range that cannot be is an error")
class NegativeOffset(Sums):
    """Slices with whatever it gets."""

    def problems(self, n=None, *, seed=None, offset=0):
        found = self.every()
        if seed is not None:
            random.Random(seed).shuffle(found)
        if n is not None and n > len(found):
            raise ConfigError("There are ten sums", got=n)
        return found[offset:][:n]


@task("every response is right or wrong")
class RaisesOnNonsense(Sums):
    """Reads a number where there is none."""

    def grade(self, problem, response):
        return int(response.split()[-1]) == int(problem.gold)


@task("a right answer is right and nothing is wrong")
class GoldIsWrong(Sums):
    """Compares with a text that nobody writes."""

    def grade(self, problem, response):
        return response == f"<{problem.gold}>"


@task("a right answer is right and nothing is wrong")
class NothingIsRight(Sums):
    """Looks for a wrong number, and finds none in an empty text."""

    def grade(self, problem, response):
        return all(number == problem.gold for number in re.findall(r"[0-9]+", response))


@task("many are graded as one")
class GradesInAnyOrder(Sums):
    """Sorts what it grades, and returns the verdicts sorted."""

    def grade_all(self, pairs):
        return sorted(super().grade_all(pairs), reverse=True)


# -- answers ---------------------------------------------------------------------------------------


def answers(law: str):
    return caught_by(law, "check_answers")


@answers("any text has an answer or none")
class FirstOfNone(Digits):
    """An IndexError where there is no number."""

    def extract(self, response):
        return re.findall(r"[0-9]{1,9}", response)[-1]


@answers("any two texts can be compared")
class ComparesNumbers(Digits):
    """A ValueError for what is no number."""

    def equal(self, left, right):
        return int(left) == int(right)


@answers("an answer equals itself")
class CaseMatters(Digits):
    """Compares with the gold answer in lower case, but not the answer."""

    def extract(self, response):
        return response.strip() or None

    def equal(self, left, right):
        return left.lower() == right


@answers("it keeps no state")
class RemembersTheLast(Digits):
    """Says the last answer again where there is none."""

    last = None

    def extract(self, response):
        self.last = super().extract(response) or self.last
        return self.last


@answers("groups are of equal answers")
class GroupsOfTexts(Digits):
    """Counts votes by text: equal answers in other words do not meet."""

    def groups(self, responses):
        known = {}
        return [known.setdefault(text, len(known)) for text in responses]


# -- boundaries ------------------------------------------------------------------------------------


def boundary(law: str):
    return caught_by(law, "check_boundary")


class EverySecond(Boundary):
    """Steps of two tokens."""

    def closed(self, tokens, vocabulary):
        return len(tokens) >= 2


@boundary("a step is closed or open")
class Rest(EverySecond):
    """The remainder instead of a bool."""

    def closed(self, tokens, vocabulary):
        return len(tokens) % 2


@boundary("steps end where they are closed")
class SplitsTooLate(EverySecond):
    """A split of its own, in threes."""

    def split(self, tokens, vocabulary):
        return [*range(3, len(tokens), 3), len(tokens)]

    def first(self, tokens, vocabulary):
        return self.split(tokens, vocabulary)[0]


@boundary("the first step is the first of all")
class FirstIsLonger(EverySecond):
    """Gives the first step one token more."""

    def first(self, tokens, vocabulary):
        return min(3, len(tokens))


@boundary("it keeps no state")
class IdsOfTheFirstVocabulary(Boundary):
    """Remembers the id of a line break, whatever the vocabulary is."""

    known = None

    def closed(self, tokens, vocabulary):
        if self.known is None:
            self.known = vocabulary.tokenizer.get_vocab()["\n"]
        return tokens[-1] == self.known
