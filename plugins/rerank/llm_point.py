"""A language model judges documents one by one: by the probability of its yes, or by a grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice, check_counts
from orchestrator.errors import ConfigError, PermanentError
from orchestrator.types import Call, Document, Query, ScoreKind

from ..llm.chat import Answer, Messages
from ..llm.judgement import first_token, grade_schema, read_grade, yes_probability
from ..llm.prompt import check_instructions, fenced, messages
from ..llm.stage import LLMStage, in_language

Scoring = Literal["logprobs", "grade"]
Unscored = Literal["fail", "last"]
_PLACEHOLDERS = ("{query}", "{document}")
_ASKS = 2
"""How often a grade is asked for, where a reply holds none. Log-probabilities would be the same again."""
_NO_SCORE = -1.0
"""Of a document without a score under `unscored: last`: below every probability and grade, and none of them."""
_SAMPLE = 60


@dataclass(eq=False)
class LLMPointRerank(LLMStage):
    """A `PointwiseRerank`: one request a document, as many in flight as `concurrency` allows.

    `scoring: logprobs` asks for one token and scores p(yes) / (p(yes) + p(no)), 0 to 1, of kind `probability`.
    `scoring: grade` asks for a grade of 0 to `max_grade`, of kind `graded`, as UMBRELA does (Upadhyay et al. 2024,
    "UMBRELA: UMbrela is the (Open-Source Reproduction of the) Bing RELevance Assessor"); equal grades keep their
    incoming order.

    A reply without a score is counted by kind and a grade asked for once more. A document that has none then is an
    error, since no score can be made up for it; `unscored: last` puts it below all others with the score -1, declared
    and never kept.

    Args:
        scoring: `logprobs` or `grade`.
        yes_words: words that count as yes, for `logprobs`; upper and lower case are the same.
        no_words: words that count as no.
        top_logprobs: alternatives of the token that are asked for, 2 to 20.
        max_grade: the best grade; 0 is the worst.
        unscored: `fail` or `last`.

    The other arguments are those of `LLMStage`. `instructions` are by scoring, then by language; `{query}`,
    `{document}` and `{max_grade}` are filled in.
    """

    scoring: Scoring = "grade"
    yes_words: Sequence[str] = ("yes", "是")
    no_words: Sequence[str] = ("no", "否", "不")
    top_logprobs: int = 20
    max_grade: int = 3
    unscored: Unscored = "fail"

    def __post_init__(self, api_key: str | None) -> None:
        super().__post_init__(api_key)
        check_choice("scoring", self.scoring, get_args(Scoring))
        check_choice("unscored", self.unscored, get_args(Unscored))
        check_counts(top_logprobs=self.top_logprobs, max_grade=self.max_grade)
        if not 2 <= self.top_logprobs <= 20:
            raise ConfigError("top_logprobs", f"found {self.top_logprobs}; expected 2 to 20")
        self._yes, self._no = _words("yes_words", self.yes_words), _words("no_words", self.no_words)
        if self._yes & self._no:
            both = ", ".join(sorted(self._yes & self._no))
            raise ConfigError("no_words", f"'{both}' also stands in `yes_words`")
        check_instructions(self.instructions.get(self.scoring), _PLACEHOLDERS, f"instructions.{self.scoring}")
        self.prompt = in_language(self.instructions[self.scoring], self.prompt_language)
        self.check_context(self.prompt, 1, 1 if self.scoring == "logprobs" else self.max_output_tokens)
        self.score_kind: ScoreKind = "probability" if self.scoring == "logprobs" else "graded"

    @property
    def model_id(self) -> str:
        """Server, model, prompt, limits and what a score is, in one digest. What the server changes is not seen."""
        judged = [self.max_grade] if self.scoring == "grade" else [*sorted(self._yes), "/", *sorted(self._no)]
        return self.digest(self.prompt, scoring=self.scoring, judged=judged, top_logprobs=self.top_logprobs)

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float64]:
        """float64 [n_pairs], in the order of `pairs`.

        Raises:
            RemoteError: the server gave no answer, a document got no score, or no money is left.
            CallCancelledError: nobody waits for the call any more.
        """
        requests = [
            partial(self._judge, row, self._asked(*pair, call), pair[1], call) for row, pair in enumerate(pairs)
        ]
        self.declare_price(call)
        scores = self.chat.server.remote.run(requests, call)
        return np.array(scores, np.float64)

    def _asked(self, query: Query, document: Document, call: Call) -> Messages:
        shown = fenced(query.text, [self.shown_text(document, call)])
        values = {"{query}": query.text, "{document}": shown, "{max_grade}": str(self.max_grade)}
        return messages(self.prompt, values)

    async def _judge(self, row: int, asked: Messages, document: Document, call: Call) -> float:
        score = await self._scored(asked, document.doc_id, call)
        if score is None:
            call.unkept([row])  # and not reported: a call that is stopped leaves the document among the unscored
            return _NO_SCORE
        call.report([row], [score])
        return score

    async def _scored(self, asked: Messages, doc_id: str, call: Call) -> float | None:
        for _ in range(_ASKS if self.scoring == "grade" else 1):
            answer = await (self._ask_grade(asked, call) if self.scoring == "grade" else self._ask_yes(asked, call))
            score, trouble = self._read(answer)
            if score is not None:
                return score
            call.repair(trouble)
        self._without_score(doc_id, trouble, answer, call)
        return None

    async def _ask_grade(self, asked: Messages, call: Call) -> Answer:
        return await self.chat.ask(asked, call, self.max_output_tokens, grade_schema(self.max_grade))

    async def _ask_yes(self, asked: Messages, call: Call) -> Answer:
        try:
            more = {"logprobs": True, "top_logprobs": self.top_logprobs}
            answer = await self.chat.ask(asked, call, 1, more=more)
        except PermanentError as error:
            if error.status is not None and "logprobs" in error.detail.lower():
                service, status = error.service, error.status
                raise PermanentError(service, f"{error.detail}. Set scoring: grade", status) from error
            raise
        if not answer.refused and not first_token(answer):
            found = "gave no log-probabilities, which scoring: logprobs needs"
            raise PermanentError(self.chat.server.remote.service, f"{found}; set scoring: grade")
        return answer

    def _read(self, answer: Answer) -> tuple[float | None, str]:
        if self.scoring == "grade":
            return read_grade(answer, self.max_grade)
        if answer.refused:
            return None, "refusal"
        return yes_probability(answer, self._yes, self._no), "unparsed"

    def _without_score(self, doc_id: str, trouble: str, answer: Answer, call: Call) -> None:
        """Raise, or declare that the document stands last."""
        if self.unscored == "last":
            call.note(f"documents without a score from {self.model.name} stand last, with {_NO_SCORE:g}")
            return
        said = answer.content or ", ".join(map(repr, list(first_token(answer))[:5]))
        kind = f"{trouble}: {' '.join(said.split())[:_SAMPLE]!r}" if said else trouble
        wanted = "a grade" if self.scoring == "grade" else "yes or no"
        advice = "set unscored: last to put such documents last, or change the instructions"
        if self.scoring == "logprobs":
            advice += "; a model that thinks before it answers needs that switched off (`extra`), or scoring: grade"
        detail = f"document '{doc_id}' got no score: expected {wanted}, found {kind}; {advice}"
        raise PermanentError(self.chat.server.remote.service, detail)


def _words(name: str, words: Sequence[str]) -> frozenset[str]:
    """The words in small letters. YAML takes an unquoted yes or no for a truth value, which is no word."""
    if isinstance(words, str) or not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise ConfigError(name, f'found {words!r}; expected a list of words, in quotes: ["yes"]')
    return frozenset(word.strip().casefold() for word in words)
